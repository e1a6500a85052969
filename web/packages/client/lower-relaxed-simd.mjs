// Rewrites a WebAssembly module so that it needs SIMD but not relaxed SIMD: every relaxed instruction becomes what the
// specification allows it to compute, in instructions that all engines have. So one build serves all browsers: Rust is
// compiled once, with relaxed SIMD, and this makes the file for engines without.
// https://github.com/WebAssembly/relaxed-simd/blob/main/proposals/relaxed-simd/Overview.md

const V128 = 0x7b;
const [LOCAL_GET, LOCAL_SET] = [0x20, 0x21];

const simd = (opcode) => [0xfd, ...leb(opcode)];
const shuffle = (...words) => [
  ...simd(0x0d),
  ...words.flatMap((word) => [0, 1, 2, 3].map((i) => 4 * word + i)),
];
const get = (local) => [LOCAL_GET, ...leb(local)];
const set = (local) => [LOCAL_SET, ...leb(local)];

const EXTMUL = { low: simd(0x9c), high: simd(0x9d) };
const PAIRS = simd(0x7e);
const I32X4_ADD = simd(0xae);

/** a · b + c, or c − a · b, rounded twice. */
const madd = (mul, add) => ({ locals: 1, code: ([c]) => [...set(c), ...simd(mul), ...get(c), ...simd(add)] });
const nmadd = (mul, sub) => ({
  locals: 2,
  code: ([c, product]) => [
    ...set(c),
    ...simd(mul),
    ...set(product),
    ...get(c),
    ...get(product),
    ...simd(sub),
  ],
});
/** Sixteen products of bytes, summed by fours, on top of c. */
const dot = {
  locals: 4,
  code([a, b, c, low]) {
    const pairs = (half) => [...get(a), ...get(b), ...half, ...PAIRS];
    const both = (...words) => [...get(low), ...get(a), ...shuffle(...words)];
    return [
      ...[...set(c), ...set(b), ...set(a)],
      ...[...pairs(EXTMUL.low), ...set(low), ...pairs(EXTMUL.high), ...set(a)],
      ...[...both(0, 2, 4, 6), ...both(1, 3, 5, 7), ...I32X4_ADD, ...get(c), ...I32X4_ADD],
    ];
  },
};
const same = (opcode) => ({ locals: 0, code: () => simd(opcode) });

/** Relaxed instruction → what takes its place. */
const LOWERED = new Map([
  [0x100, same(0x0e)],
  [0x101, same(0xf8)],
  [0x102, same(0xf9)],
  [0x103, same(0xfc)],
  [0x104, same(0xfd)],
  [0x105, madd(0xe6, 0xe4)],
  [0x106, nmadd(0xe6, 0xe5)],
  [0x107, madd(0xf2, 0xf0)],
  [0x108, nmadd(0xf2, 0xf1)],
  [0x109, same(0x52)],
  [0x10a, same(0x52)],
  [0x10b, same(0x52)],
  [0x10c, same(0x52)],
  [0x10d, same(0xe8)],
  [0x10e, same(0xe9)],
  [0x10f, same(0xf4)],
  [0x110, same(0xf5)],
  [0x111, same(0x82)],
  [0x113, dot],
]);

function leb(value) {
  const bytes = [];
  for (;;) {
    const low = value & 0x7f;
    value >>>= 7;
    if (value === 0) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

/** Reads bytes from front to back. */
class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }
  byte() {
    return this.bytes[this.at++];
  }
  /** An unsigned number of up to 32 bits. */
  number() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }
  /** Any number whose value does not matter. */
  skip(count = 1) {
    for (; count > 0; count--) while (this.byte() >= 0x80);
  }
  address() {
    if (this.number() & 0x40) this.skip();
    this.skip();
  }
}

/** Parameters of each function that the module defines. */
function parameters(module) {
  const types = [];
  const defined = [];
  let section = module.get(1);
  for (let left = section.number(); left > 0; left--) {
    if (section.byte() !== 0x60) throw new Error("a type that is no function");
    const count = section.number();
    section.at += count;
    types.push(count);
    const results = section.number();
    section.at += results;
  }
  section = module.get(3);
  for (let left = section.number(); left > 0; left--) defined.push(types[section.number()]);
  return defined;
}

/** Instructions without a prefix whose immediates are this many numbers. */
const NUMBERS = new Map([
  ...[0x02, 0x03, 0x04, 0x0c, 0x0d, 0x10, 0x12, 0x3f, 0x40, 0x41, 0x42, 0xd0, 0xd2].map((code) => [code, 1]),
  ...[0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26].map((code) => [code, 1]),
  ...[0x11, 0x13].map((code) => [code, 2]),
]);
/** The same after the prefix 0xfc. */
const NUMBERS_FC = [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1];

/** Steps over one instruction; returns its number where it is a relaxed one. */
function step(code) {
  const opcode = code.byte();
  if (opcode === 0xfd) {
    const number = code.number();
    if (number <= 11 || number === 92 || number === 93) code.address();
    else if (number === 12 || number === 13) code.at += 16;
    else if (number >= 21 && number <= 34) code.at += 1;
    else if (number >= 84 && number <= 91) {
      code.address();
      code.at += 1;
    }
    return number >= 0x100 ? number : undefined;
  }
  if (opcode === 0xfc) code.skip(NUMBERS_FC[code.number()]);
  else if (opcode >= 0x28 && opcode <= 0x3e) code.address();
  else if (opcode === 0x43) code.at += 4;
  else if (opcode === 0x44) code.at += 8;
  else if (opcode === 0x0e) code.skip(code.number() + 1);
  else if (opcode === 0x1c) code.skip(code.number());
  else if (NUMBERS.has(opcode)) code.skip(NUMBERS.get(opcode));
  else if (!(opcode <= 0x01 || opcode === 0x05 || opcode === 0x0b || opcode === 0x0f || opcode === 0xd1))
    if (!(opcode === 0x1a || opcode === 0x1b || (opcode >= 0x45 && opcode <= 0xc4)))
      throw new Error(`an unknown instruction, 0x${opcode.toString(16)}`);
  return undefined;
}

/** One function's body without relaxed instructions; the same bytes where it has none. */
function body(bytes, parameterCount) {
  const code = new Reader(bytes);
  const groups = code.number();
  const groupsStart = code.at;
  let locals = parameterCount;
  for (let left = groups; left > 0; left--) {
    locals += code.number();
    code.at += 1;
  }
  const start = code.at;
  const parts = [];
  let [copied, added] = [start, 0];
  while (code.at < bytes.length) {
    const before = code.at;
    const relaxed = step(code);
    if (relaxed === undefined) continue;
    const lowered = LOWERED.get(relaxed);
    if (!lowered) throw new Error(`no lowering of the relaxed instruction 0x${relaxed.toString(16)}`);
    added = Math.max(added, lowered.locals);
    const own = Array.from({ length: lowered.locals }, (_, i) => locals + i);
    parts.push(bytes.subarray(copied, before), Uint8Array.from(lowered.code(own)));
    copied = code.at;
  }
  if (parts.length === 0) return bytes;
  parts.push(bytes.subarray(copied));
  const declared = bytes.subarray(groupsStart, start);
  const head = added === 0 ? [leb(groups), declared] : [leb(groups + 1), declared, [...leb(added), V128]];
  return Buffer.concat([...head, ...parts].map((part) => Uint8Array.from(part)));
}

/** The module for engines with SIMD128 alone. */
export function lowerRelaxedSimd(bytes) {
  const whole = new Reader(bytes, 8);
  const sections = [];
  while (whole.at < bytes.length) {
    const id = whole.byte();
    const size = whole.number();
    sections.push({ id, content: bytes.subarray(whole.at, whole.at + size) });
    whole.at += size;
  }
  const counts = parameters(new Map(sections.map(({ id, content }) => [id, new Reader(content)])));
  const written = [bytes.subarray(0, 8)];
  for (const { id, content } of sections) {
    const section = id === 10 ? codeSection(content, counts) : content;
    written.push(Uint8Array.from([id, ...leb(section.length)]), section);
  }
  return Buffer.concat(written);
}

function codeSection(content, counts) {
  const code = new Reader(content);
  const count = code.number();
  const parts = [Uint8Array.from(leb(count))];
  for (let index = 0; index < count; index++) {
    const size = code.number();
    const lowered = body(content.subarray(code.at, code.at + size), counts[index]);
    code.at += size;
    parts.push(Uint8Array.from(leb(lowered.length)), lowered);
  }
  return Buffer.concat(parts);
}
