"use strict";
// Numbers and names as text for people: the same text as perfkit/units.py gives.
{
  const pk = (window.perfkit ??= {});
  const MISSING = "–";
  const TIME = [
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
    [1, "ns"],
  ];
  const BYTES = [
    [2 ** 40, "TiB"],
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ];

  const absent = (value) => value === null || value === undefined || !Number.isFinite(value);

  /** `value` with `digits` decimals. Exact ties go to the even digit, as in Python. */
  function fixed(value, digits) {
    const scaled = Math.abs(value) * 10 ** digits;
    const tie = scaled % 1 === 0.5 && Number.isInteger(value * 2 ** (digits + 1));
    if (!tie) return value.toFixed(digits);
    const even = Math.floor(scaled) % 2 === 0 ? Math.floor(scaled) : Math.ceil(scaled);
    return ((Math.sign(value) * even) / 10 ** digits).toFixed(digits);
  }

  /** `value` with so many significant digits and no trailing zeros: Python's `g`. */
  function significant(value, digits) {
    if (value === 0) return "0";
    const exponent = Number(
      Math.abs(value)
        .toExponential(digits - 1)
        .split("e")[1],
    );
    if (exponent < -4) {
      const [mantissa, power] = value.toExponential(digits - 1).split("e-");
      return `${trim(mantissa)}e-${power.padStart(2, "0")}`;
    }
    if (exponent >= digits) {
      const unit = 10 ** (exponent - digits + 1);
      return String(Number(fixed(value / unit, 0)) * unit);
    }
    return trim(fixed(value, digits - 1 - exponent));
  }

  const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  const thousands = (text) => text.replace(/\B(?=(\d{3})+$)/g, ",");
  const threeDigits = (value) => (value >= 99.95 ? fixed(value, 0) : significant(value, 3));

  function number(value) {
    if (absent(value)) return MISSING;
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return thousands(String(value));
    const magnitude = Math.abs(value);
    if (magnitude >= 100) return thousands(fixed(value, 0));
    return significant(value, magnitude >= 0.001 ? 3 : 2);
  }

  function duration(ns) {
    if (absent(ns)) return MISSING;
    if (ns === 0) return "0 s";
    const sign = ns < 0 ? "-" : "";
    const magnitude = Math.abs(ns);
    if (magnitude >= 3600e9) return sign + parts(magnitude / 60e9, "h", "min");
    if (magnitude >= 99.95e9) return sign + parts(magnitude / 1e9, "min", "s");
    const [step, unit] = TIME.find(([size]) => magnitude >= size * 0.9995 || size === 1);
    return `${sign}${threeDigits(magnitude / step)} ${unit}`;
  }

  function parts(small, bigUnit, smallUnit) {
    const whole = Number(fixed(small, 0));
    const rest = whole % 60;
    const big = `${Math.floor(whole / 60)} ${bigUnit}`;
    return rest ? `${big} ${rest} ${smallUnit}` : big;
  }

  function size(bytes) {
    if (absent(bytes)) return MISSING;
    const magnitude = Math.abs(bytes);
    const found = BYTES.find(([step]) => magnitude >= step);
    if (!found) return `${fixed(bytes, 0)} B`;
    return `${bytes < 0 ? "-" : ""}${threeDigits(magnitude / found[0])} ${found[1]}`;
  }

  function percent(ratio) {
    if (absent(ratio)) return MISSING;
    const value = ratio * 100;
    const magnitude = Math.abs(value);
    if (magnitude && magnitude < 0.1) return value > 0 ? "<0.1 %" : ">-0.1 %";
    return magnitude >= 9.995 ? `${fixed(value, 0)} %` : `${significant(value, 2)} %`;
  }

  function rate(perSecond) {
    if (absent(perSecond)) return MISSING;
    for (const [factor, unit] of [
      [1, "s"],
      [60, "min"],
      [3600, "h"],
    ]) {
      const value = perSecond * factor;
      if (Math.abs(value) >= 1 || unit === "h") {
        return `${number(Number(significant(value, 3)))}/${unit}`;
      }
    }
    return MISSING;
  }

  /** A time of day, UTC, of a moment given in ns since the capture's start. */
  function clock(relativeNs) {
    const start = pk.data?.page?.start_unix_ms;
    const moment = new Date(start + relativeNs / 1e6);
    return Number.isNaN(moment.getTime()) ? MISSING : `${moment.toISOString().slice(11, 23)}Z`;
  }

  // What a reader cannot see, or what turns the text around it: the set of perfkit/report/text.py.
  const UNSEEN = new RegExp(
    "[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e" +
      "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|\\p{Surrogate}|[\\u{e0000}-\\u{e007f}]",
    "gu",
  );

  /** Text from outside, with control, direction and invisible characters written out. */
  function text(value, limit = Infinity) {
    const whole = String(value ?? "");
    const cut = whole.length > limit ? `${whole.slice(0, limit - 1)}…` : whole;
    return cut.replace(UNSEEN, (character) => {
      const code = character.codePointAt(0);
      if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
      return code < 0x10000
        ? `\\u${code.toString(16).padStart(4, "0")}`
        : `\\U${code.toString(16).padStart(8, "0")}`;
    });
  }

  /** The same for Plotly, which reads `<b>` and `<a href>` in every text that it draws. */
  const plotly = (value, limit) =>
    text(value, limit)
      .replace(/[\t\n]/g, " ")
      .replace(/&/g, "&amp;")
      .replace(/</g, "&lt;")
      .replace(/>/g, "&gt;");

  /** `1 request`, `2 requests`. */
  const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

  /** A value by the unit of its column: "ns", "bytes", "ratio", "count", "samples". */
  function value(amount, unit) {
    if (unit === "ns") return duration(amount);
    if (unit === "bytes") return size(amount);
    if (unit === "ratio") return percent(amount);
    if (unit === "samples") return absent(amount) ? MISSING : plural(amount, "sample");
    return number(amount);
  }

  pk.format = {
    MISSING,
    number,
    duration,
    size,
    percent,
    rate,
    clock,
    text,
    plotly,
    plural,
    value,
  };
}
