"""The instruction set: one table per opcode. The single source of every bit position.

Positions and values were read off hundreds of published compiled programs; meanings carry
an evidence level. Encoder, decoder, assembly text and docs/isa.md are derived from here.
"""

from __future__ import annotations

from compiler.beagle.isa.fields import Evidence, Form, FormBuilder

_B = Evidence.CONSISTENT
_C = Evidence.GUESS


def _scalar() -> Form:
    b = FormBuilder("scalar", 0x00, True, 1, "ALU operation and, beside it, a memory or host move and a special function")
    b.header()
    b.add("port", 12, 2, "loads a word of scalar memory: 1 at a fixed address, 2 and 3 at an address in a register",
          evidence=_B)
    b.add("port_register", 14, 5, "register loaded")
    b.add("port_operation", 19, 12, "word address, or register with the word address; bit 5: step it afterwards")
    b.add("vector_operation", 31, 5, "0 none, 2 stores to scalar memory at a fixed address, 4 and 6 at an address in a "
          "register, 8 push to the host output, 10 write host DMA descriptor word, 12 issue host DMA")
    b.add("vector_offset", 36, 13, "descriptor word (0 address low, 1 address high, 2 bytes, 3 tag), or for stores the "
          "word address, or the register with the word address; bit 5: step it afterwards")
    b.add("vector_source", 49, 5, "register that is moved")
    b.add("operation", 54, 6, "ALU operation; bit 5 selects the immediate form; 16 and above work on float32")
    b.add("destination", 60, 5, "destination register, or predicate of a compare")
    b.add("source", 65, 5, "source register")
    b.add("immediate", 70, 32, "32-bit immediate, or the second register")
    b.add("special", 102, 3, "2 reciprocal, 3 power of two, of a float32 register")
    b.add("special_source", 105, 5, "operand of the special function; its destination too in every known program",
          evidence=_B)
    b.add("special_destination", 110, 5, "result of the special function", evidence=_B)
    return b.build()


def _halt() -> Form:
    b = FormBuilder("halt", 0x01, True, 1, "end of a chunk of the program")
    meaning = "16 in the last chunk of a program; 4 where the host sends another one"
    return b.header().add("code", 12, 8, meaning, evidence=_C).build()


def _branch() -> Form:
    b = FormBuilder("branch", 0x02, True, 1, "jumps, possibly on a condition")
    b.header()
    b.add("conditional", 12, 1, "jumps only if the predicate register has the wanted sense")
    b.add("condition", 13, 3, "predicate register")
    b.add("condition_sense", 16, 1, "wanted value of the predicate")
    b.add("offset", 17, 15, "words from this instruction to the target", signed=True)
    return b.add("constant33", 33, 1, "1 in every known program", evidence=_C).build()


def _loop() -> Form:
    b = FormBuilder("loop", 0x03, True, 1, "repeats the instructions that follow")
    b.header()
    b.add("iterations", 12, 16, "number of iterations")
    return b.add("body", 28, 12, "instructions of the body").build()


def _scalar_fence() -> Form:
    b = FormBuilder("scalar_fence", 0x04, True, 2, "waits for tiles, counters and engines, then sets scalar counters")
    b.header()
    b.add("tiles", 12, 16, "tile mask", evidence=_B)
    b.add("reset", 32, 9, "scalar counters that are set")
    b.add("value", 41, 16, "value they are set to")
    b.add("wait_tiles", 57, 1, "wait for one notification of each tile in notified")
    b.add("notified", 73, 16, "tiles whose notification is awaited")
    for i in range(9):
        b.add(f"wait{i}.value", 93 + 16 * i, 16, f"value awaited on scalar counter {i}")
    for i in range(9):
        b.add(f"wait{i}.enable", 237 + i, 1, f"wait on scalar counter {i}")
    b.add("engines", 246, 5, "scalar engines that must be idle: avData pop, parameter pop, infeed, outfeed, ?", evidence=_B)
    return b.build()


def _infeed() -> Form:
    b = FormBuilder("infeed", 0x05, True, 2, "host data into the parameter or activation FIFO")
    b.header()
    b.add("stream", 12, 1, "0 parameters (64-byte lines), 1 activations (8-byte words)")
    b.generator("fifo", 13, 15, 3, "FIFO written")
    b.signal("filled", 174, 2, "the scalar counter of filled entries")
    return b.watch("watch0", 177, 4, 2).build()


def _pop() -> Form:
    b = FormBuilder("pop", 0x06, True, 4, "sends FIFO entries as packets over the ring bus")
    b.header()
    b.add("source", 12, 2, "0 parameter FIFO, 1 activation FIFO, 2 scalar FIFO filled by outfeed")
    b.generator("fifo", 14, 20, 3, "FIFO read")
    b.signal("producer", 308, 2, "RING_PRODUCER of all tiles and of the scalar core")
    b.signal("credit", 311, 2, "the scalar counter of credits")
    b.watch("watch0", 314, 4, 2).watch("watch1", 353, 4, 2)
    b.add("constant392", 392, 1, "1 in every known program", evidence=_C)
    b.add("ring", 408, 1, "0 ring A, 1 ring B", evidence=_C)
    b.add("receivers", 409, 16, "tiles that receive")
    b.add("lanes_m1", 434, 6, "lanes (4 bytes) of a packet minus one")
    return b.build()


def _outfeed() -> Form:
    b = FormBuilder("outfeed", 0x07, True, 2, "ring packets to the host or to the scalar FIFO")
    b.header()
    b.generator("fifo", 12, 15, 3, "destination")
    b.signal("credit", 173, 2, "the scalar counter RING_OUTFEED")
    b.watch("watch0", 176, 4, 2)
    b.add("constant222", 222, 6, "63 in every known program: lanes of a packet minus one", evidence=_C)
    b.add("to_host", 228, 1, "1: 8-byte words to the host, 0: 4-byte words to the scalar FIFO")
    return b.build()


def _bounds(name: str, code: int, summary: str) -> Form:
    b = FormBuilder(name, code, True, 1, summary)
    return b.header().add("bits", 19, 32, "begin: bits between begin and end; end: 128").build()


def _compute_walks(name: str, code: int, summary: str) -> FormBuilder:
    """Add what all instructions of the compute unit share: loops, operands, watches, lanes, multiplier."""
    b = FormBuilder(name, code, False, 17, summary)
    b.header(tiles=True, trace_low=46)
    for i in range(8):
        b.add(f"loop{i}", 62 + 14 * i, 14, f"iterations of loop {i} minus one, loop 0 innermost")
    b.add("loop_epilogue_limit", 174, 14, "limit of loop 0 in the epilogue")
    b.add("loop_epilogue_dim", 188, 3, "the epilogue is the last iteration of this loop, 0 = none")
    b.generator("in", 191, 18, 8, "narrow input, bytes")
    b.generator("out", 574, 18, 8, "narrow output, bytes")
    b.generator("weights", 957, 14, 8, "wide input, quarter rows")
    b.generator("partial", 1260, 14, 8, "partial sums, quarter rows")
    b.signal("avdata", 1563, 4, "AVDATA per dimensions of out")
    b.signal("parameters", 1568, 4, "PARAMETERS per dimensions of weights")
    b.signal("partial_sums", 1573, 4, "PARTIAL_SUMS per dimensions of partial")
    for i in range(6):
        b.watch(f"watch{i}", 1578 + 41 * i, 5, 3)
    b.add("flag1843", 1843, 1, "set for convolutions, dense layers and sums of squares; no numerical effect found",
          evidence=_C)
    b.add("partial_from_zero", 1844, 1, "the first contribution starts from zero, not from the partial row", evidence=_B)
    b.add("no_partial_sums", 1845, 1, "accumulators never leave the unit")
    b.add("in_16bit", 1846, 1, "elements of in are 16 bits wide")
    b.add("weights_16bit", 1847, 1, "elements of weights are 16 bits wide")
    b.add("flags1848", 1848, 2, "set in byte gathers together with the three slot bits", evidence=_C)
    for i in (1, 2, 3):
        b.add(f"slot{i}_off", 1849 + i, 1, f"byte slot {i} of the multiplier is off")
    b.add("zero_points_per_channel", 1853, 1, "weight zero points are an int32 wide row")
    b.add("weights_zero_point", 1854, 16, "subtracted from weights")
    b.add("in_zero_point", 1870, 16, "subtracted from in")
    b.add("zero_point_row.last", 1886, 12, "last wide row of zero points (circular)")
    b.add("zero_point_row.step", 1898, 12, "rows per group of output channels")
    b.add("zero_point_row.start", 1910, 12, "first wide row of zero points")
    b.add("constant1922", 1922, 1, "not decoded", evidence=_C)
    b.add("channel_group_level", 1923, 3, "loops at and above this level count groups of output channels")
    b.add("reduction", 1926, 8, "mask of the loops that are summed over")
    b.add("lanes_last_m1", 1934, 6, "lanes of the last channel group minus one")
    b.add("lanes_m1", 1940, 6, "lanes of the other channel groups minus one")
    b.add("nonlinear", 1946, 3, "bit 0 table, bit 1 reciprocal square root range, bit 2 16-bit output")
    return b.add("multiplier", 1949, 32, "float32 multiplier")


def _compute(name: str, code: int, summary: str) -> Form:
    b = _compute_walks(name, code, summary)
    b.add("clamp_high", 1981, 32, "float32, applied before rounding and before the output zero point")
    b.add("clamp_low", 2013, 32, "float32, applied before rounding and before the output zero point")
    b.add("constant", 2045, 32, "int32 added to every sum", signed=True)
    b.add("out_zero_point", 2077, 16, "added after rounding")
    b.add("use_bias", 2093, 1, "adds the bias bank of the scaling registers")
    b.add("use_multiplier", 2094, 1, "multiplies by the multiplier bank of the scaling registers")
    b.add("odd_symmetry", 2095, 2, "3: the table holds x >= 0 of an odd function", evidence=_B)
    return b.build()


def _resize() -> Form:
    b = _compute_walks("tensor_resize", 0x05, "bilinear interpolation between 2 x 2 neighbours")
    b.add("denominator_log2", 1981, 8, "positions are multiples of 1 / 2**this; 2 in every known program", evidence=_C)
    b.add("columns.phase", 1989, 8, "position of the first column right of its left neighbour", evidence=_B)
    b.add("columns.step", 1997, 16, "added per column; beyond the denominator the neighbours move on", evidence=_B)
    b.add("denominator_m1", 2013, 8, "denominator of the positions minus one; 3 in every known program", evidence=_C)
    b.add("rows.phase", 2021, 8, "position of the first row below its upper neighbour", evidence=_B)
    b.add("rows.step", 2029, 16, "added per row", evidence=_B)
    b.add("columns.stride", 2045, 32, "bytes between columns of the input", signed=True, evidence=_B)
    return b.add("rows.stride", 2077, 16, "bytes between rows of the input", evidence=_B).build()


def _tiles_from_register(b: FormBuilder) -> None:
    """In loops of recurrent networks the scalar core computes which tile holds a time step."""
    b.add("tiles_register", 33, 5, "scalar register with the tile mask", evidence=_B)
    b.add("tiles_from_register", 38, 1, "the tile mask is in a scalar register", evidence=_B)


def _ring_producer() -> Form:
    b = FormBuilder("ring_send", 0x10, False, 4, "wide rows onto the ring bus")
    b.header(tiles=True, trace_low=46)
    _tiles_from_register(b)
    b.generator("src", 62, 16, 4, "wide rows read")
    # Bits 267..334 hold the prefix record of the receiving forms; senders leave it zero.
    b.signal("write", 335, 3, "RING_WRITE")
    b.signal("producer", 339, 3, "RING_PRODUCER of all tiles and of the scalar core")
    for i in range(3):
        b.watch(f"watch{i}", 343 + 41 * i, 5, 2, side=True)
    b.add("ring", 466, 1, "0 ring A, 1 ring B")
    b.add("receivers", 467, 16, "tiles that receive")
    b.add("to_scalar", 483, 1, "the scalar core (outfeed) receives")
    return b.build()


def _ring_consumer(name: str, code: int, ring: str) -> Form:
    b = FormBuilder(name, code, False, 4, f"packets of ring {ring} into wide memory")
    b.header(tiles=True, trace_low=46)
    b.generator("dst", 62, 16, 4, "wide rows written")
    b.add("prefix.enable", 267, 1, "prefix rows precede the blocks")
    b.add("prefix.level", 268, 2, "prefix rows come before every block of this many dimensions plus one")
    b.add("prefix.start", 270, 16, "first prefix row")
    b.add("prefix.count_m1", 286, 16, "prefix rows per block minus one")
    b.add("prefix.last", 302, 16, "last row of the prefix region (wraps to start)")
    b.add("prefix.step", 318, 17, "rows the prefix moves per block", signed=True)
    b.signal("read", 335, 3, f"RING_READ_{ring}")
    for i in range(4):
        b.watch(f"watch{i}", 339 + 41 * i, 5, 2, side=True)
    return b.build()


def _narrow_to_wide() -> Form:
    b = FormBuilder("narrow_to_wide", 0x13, False, 7, "narrow words packed into wide rows")
    b.header(tiles=True, trace_low=46)
    b.add("source_register", 28, 5, "scalar register with the first word read", evidence=_B)
    _tiles_from_register(b)
    b.add("source_from_register", 542, 1, "the first word read is in a scalar register", evidence=_B)
    b.generator("src", 62, 16, 6, "narrow words read")
    b.generator("dst", 337, 16, 4, "wide rows written")
    b.signal("done", 543, 3, "NARROW_TO_WIDE")
    for i in range(6):
        b.watch(f"watch{i}", 547 + 42 * i, 5, 3, side=True)
    b.add("layout", 799, 2, "0 plain, 1 4x4 byte transpose, 3 2x2 halfword transpose")
    b.add("flush_level", 801, 4, "a wide row is closed after every block of this many source dimensions")
    return b.build()


def _wide_to_narrow() -> Form:
    b = FormBuilder("wide_to_narrow", 0x14, False, 7, "wide rows unpacked into narrow memory or scaling registers")
    b.header(tiles=True, trace_low=46)
    b.generator("src", 62, 16, 4, "wide rows read")
    b.generator("dst", 267, 16, 6, "narrow words or scaling entries written")
    b.add("prefix.enable", 542, 1, "words in front of each block are skipped")
    b.add("prefix.level", 543, 3, "before every block of this many dimensions plus one")
    b.add("prefix.start", 546, 16, "first word of the region they go to")
    b.add("prefix.count_m1", 562, 16, "words minus one")
    b.add("prefix.last", 578, 16, "last word of the region")
    b.add("prefix.step", 594, 17, "words the prefix moves per block", signed=True)
    b.signal("done", 611, 3, "WIDE_TO_NARROW, or WIDE_TO_SCALING for the scaling registers")
    for i in range(6):
        b.watch(f"watch{i}", 615 + 42 * i, 5, 3, side=True)
    b.add("to_scaling", 867, 1, "destination is the scaling registers")
    b.add("constant868", 868, 2, "zero in every known program", evidence=_C)
    b.add("drop_level", 870, 3, "the rest of the wide row is dropped after every block of this many destination dimensions")
    return b.build()


def _mesh(name: str, code: int, source: str, target: str) -> Form:
    b = FormBuilder(name, code, False, 6, f"receives from the {source} neighbour and sends to the {target} one")
    b.header(tiles=True, trace_low=46)
    b.generator("src", 62, 16, 4, "narrow words sent")
    b.generator("dst", 267, 16, 4, "narrow words received")
    b.signal("sent", 473, 3, "MESH_OUT of the direction")
    b.signal("received", 477, 3, "MESH_IN of the direction")
    for i in range(6):
        b.watch(f"watch{i}", 481 + 41 * i, 5, 2, side=True)
    b.add("fill", 727, 1, "writes the fill value instead of receiving")
    b.add("fill_value", 728, 32, "word written")
    return b.build()


def _table() -> Form:
    b = FormBuilder("table", 0x19, False, 13, "loads the nonlinear table: eight quartics and their breakpoints")
    b.header(tiles=True, trace_low=46)
    for segment in range(8):
        for power in range(5):
            b.add(f"c{segment}.{power}", 62 + 32 * (5 * segment + power), 32,
                  f"float32 coefficient of x**{power} in segment {segment}")
    for i in range(7):
        b.add(f"breakpoint{i}", 1342 + 32 * i, 32, f"float32 lower bound of segment {i + 1}")
    return b.add("constant1566", 1566, 2, "3 in every known program", evidence=_C).build()


def _tile_fence() -> Form:
    b = FormBuilder("tile_fence", 0x1A, False, 1, "waits for engines of a tile, sets its counters, notifies")
    b.header(tiles=True, trace_low=28)
    b.add("reset", 44, 19, "counters that are set")
    b.add("value", 63, 16, "value they are set to")
    b.add("engines", 79, 10, "engines that must be idle: op, ring A, ring B, ring send, wide to narrow, narrow to wide, "
          "mesh north, east, south, west", evidence=_B)
    b.add("awaited", 89, 16, "value that the counter must have reached before it is set; programs of runtime 10 put the "
          "number of ring producer operations here", evidence=_B)
    b.add("notify", 107, 1, "notifies the scalar core when done")
    return b.add("final", 109, 2, "3 before the final interrupt", evidence=_C).build()


FORMS: tuple[Form, ...] = (
    _scalar(), _halt(), _branch(), _loop(), _scalar_fence(), _infeed(), _pop(), _outfeed(),
    _bounds("begin", 0x1E, "first instruction of a stream"), _bounds("end", 0x1F, "last instruction of a stream"),
    _compute("tensor_op", 0x01, "multiply-accumulate over up to eight loops"),
    _compute("tensor_max", 0x02, "running maximum"),
    _compute("tensor_sum", 0x03, "sum of the wide operand"),
    _resize(),
    _ring_producer(), _ring_consumer("ring_receive_a", 0x11, "A"), _ring_consumer("ring_receive_b", 0x12, "B"),
    _narrow_to_wide(), _wide_to_narrow(),
    _mesh("mesh_from_north", 0x15, "northern", "southern"), _mesh("mesh_from_east", 0x16, "eastern", "western"),
    _mesh("mesh_from_south", 0x17, "southern", "northern"), _mesh("mesh_from_west", 0x18, "western", "eastern"),
    _table(), _tile_fence(),
)
"""All instruction forms of known programs."""

FORM_BY_KEY: dict[tuple[bool, int], Form] = {f.key: f for f in FORMS}
FORM_BY_NAME: dict[str, Form] = {f.name: f for f in FORMS}
