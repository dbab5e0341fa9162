/**
 * Reads the arrays of an .npz file of numpy: a zip archive (APPNOTE.TXT 4.3) of .npy files (numpy's format 1.0 to 3.0),
 * stored or deflated. Browsers inflate by themselves.
 *
 * @typedef {Uint8Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array} Numbers
 */

const [END, ENTRY, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50];
const [STORED, DEFLATED] = [0, 8];
/** The end of an archive, and the longest comment that may follow it. */
const LARGEST_END = 22 + 0xffff;
/** What an .npy file begins with: 0x93 and NUMPY. */
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const KINDS = {
  "|b1": Uint8Array, "|u1": Uint8Array, "|i1": Int8Array, "<i2": Int16Array, "<i4": Int32Array, "<i8": BigInt64Array,
  "<f4": Float32Array, "<f8": Float64Array,
};

/**
 * @param {ArrayBuffer} bytes
 * @returns {Promise<Record<string, {data: Numbers, shape: number[]}>>}  by name; int64 as float64
 * @throws {Error} where it is no such file, is damaged, or holds something else than arrays of numbers
 */
export async function readNpz(bytes) {
  const arrays = [];
  for (const { name, content } of entriesOf(bytes)) {
    arrays.push([name.replace(/\.npy$/, ""), arrayOf(name, await content())]);
  }
  return Object.fromEntries(arrays);
}

function* entriesOf(bytes) {
  const view = new DataView(bytes);
  let end = bytes.byteLength - 22;
  const least = Math.max(0, bytes.byteLength - LARGEST_END);
  while (end >= least && view.getUint32(end, true) !== END) end -= 1;
  if (end < least) throw new Error("it is no .npz file");
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("its list of arrays is damaged");
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const name = new TextDecoder().decode(new Uint8Array(bytes, at + 46, nameLength));
    const entry = {
      method: view.getUint16(at + 10, true),
      packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      local: view.getUint32(at + 42, true),
    };
    yield { name, content: () => contentOf(bytes, view, name, entry) };
    at += 46 + nameLength + extraLength + commentLength;
  }
}

async function contentOf(bytes, view, name, { method, packed, size, local }) {
  // 4 GiB and more are written elsewhere in the archive, and would be too much for a page.
  if ([packed, size, local].includes(0xffffffff)) throw new Error(`${name} is too large`);
  if (view.getUint32(local, true) !== LOCAL) throw new Error(`${name} is damaged`);
  const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  const stored = new Uint8Array(bytes, start, packed);
  if (method !== STORED && method !== DEFLATED) throw new Error(`${name} is packed by method ${method}`);
  const content = method === STORED ? stored.slice().buffer : await inflated(stored, name);
  if (content.byteLength !== size) throw new Error(`${name} holds ${content.byteLength} bytes, not ${size}`);
  return content;
}

async function inflated(stored, name) {
  try {
    const stream = new Blob([stored]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return await new Response(stream).arrayBuffer();
  } catch {
    throw new Error(`${name} cannot be inflated`);
  }
}

function arrayOf(name, content) {
  const view = new DataView(content);
  if (!MAGIC.every((byte, i) => new Uint8Array(content)[i] === byte)) throw new Error(`${name} is no array`);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(content, start, length));
  const [, kind] = /'descr': *'([^']+)'/.exec(header) ?? [];
  const [, axes] = /'shape': *\(([\d, ]*)\)/.exec(header) ?? [];
  if (!Object.hasOwn(KINDS, kind ?? "") || axes === undefined || !/'fortran_order': *False/.test(header)) {
    throw new Error(`${name} is no array of numbers, row by row: ${header.trim()}`);
  }
  const shape = axes.split(",").map((each) => each.trim()).filter(Boolean).map(Number);
  const values = new KINDS[kind](content.slice(start + length));
  if (values.length !== shape.reduce((product, each) => product * each, 1)) {
    throw new Error(`${name} holds ${values.length} numbers, and its shape is ${shape}`);
  }
  return { data: values instanceof BigInt64Array ? Float64Array.from(values, Number) : values, shape };
}
