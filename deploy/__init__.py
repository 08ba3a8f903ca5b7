"""The deploy floor: devices, transports, releases."""
