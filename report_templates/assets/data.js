"use strict";
// Unpacks what perfkit/report/pack.py packed: base64 and gzip of columns and a JSON header.
{
  const pk = (window.perfkit ??= {});
  const TYPES = {
    i1: Int8Array,
    u1: Uint8Array,
    i2: Int16Array,
    u2: Uint16Array,
    i4: Int32Array,
    u4: Uint32Array,
    f4: Float32Array,
    f8: Float64Array,
  };

  function bytes(base64) {
    const binary = atob(base64.trim());
    const result = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) result[i] = binary.charCodeAt(i);
    return result;
  }

  async function inflate(base64) {
    const stream = new Blob([bytes(base64)]).stream();
    const plain = stream.pipeThrough(new DecompressionStream("gzip"));
    return new Response(plain).arrayBuffer();
  }

  /** The packed value of a buffer, its columns as views into the buffer. */
  function decode(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    return revive(header, buffer, 4 + length);
  }

  function revive(value, buffer, base) {
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) value[i] = revive(value[i], buffer, base);
      return value;
    }
    if (value.$array) return column(value.$array, buffer, base);
    for (const key of Object.keys(value)) value[key] = revive(value[key], buffer, base);
    return value;
  }

  function column([type, offset, length, coding], buffer, base) {
    const stored = new TYPES[type](buffer, base + offset, length);
    if (coding !== "delta") return stored;
    const values = new Float64Array(length);
    let sum = 0;
    for (let i = 0; i < length; i++) values[i] = sum += stored[i];
    return values;
  }

  /** Takes the text of an inert block out of the page. */
  function take(id) {
    const element = document.getElementById(id);
    if (!element) throw new Error(`the page has no #${id}`);
    const content = element.textContent;
    element.remove();
    return content;
  }

  pk.unpack = {
    decode,
    data: async (id) => decode(await inflate(take(id))),
    text: async (id) => new TextDecoder().decode(await inflate(take(id))),
  };
}
