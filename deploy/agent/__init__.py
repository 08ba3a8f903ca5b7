"""The part that runs on a device (`etpu_agent`, one file) and the part that talks to it (`client`)."""
