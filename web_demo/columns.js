/**
 * Tabular columns beside the picture: from what a person says to the numbers that a model takes. The same arithmetic as
 * `exporters/columns.py`; normalising, buckets and one-hot are inside the model.
 *
 * @typedef {{name: string, kind: "number" | "category" | "bucket", default?: number, mean?: number,
 *   standard_deviation?: number, boundaries?: number[], categories?: string[]}} Column  of `card.columns`
 * @typedef {Record<string, string | number | null>} Cells  column -> what is known of it; empty or not there: nothing
 */

/** The numbers that Python reads alike; `Number` by itself also takes "0x10" and an empty text. */
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
/** What Python's `str.strip` takes away, which is not what `trim` does. */
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const AROUND = new RegExp(`^${SPACE}|${SPACE}$`, "g");
/** What stands for an empty cell, and for a category that training never saw. */
const UNKNOWN = 0;

/** What a cell says: its text without white space around it; nothing where there is none. */
export const textOf = (cell) => (cell === null || cell === undefined ? "" : String(cell).replace(AROUND, ""));

/**
 * The number that a cell holds.
 *
 * @throws {Error} where it holds none that float32 can
 */
export function numberOf(text, name) {
  const value = NUMBER.test(text) ? Number(text) : NaN;
  if (!Number.isFinite(Math.fround(value))) {
    throw new Error(`The column ${name} has “${text}”. Expected: a number, such as 3.5, or nothing.`);
  }
  return value;
}

function encoded(column, cell) {
  const text = textOf(cell);
  if (column.kind === "category") return indexOf(column, text);
  return text === "" ? column.default : numberOf(text, column.name);
}

const indexOf = ({ categories }, text) => (categories.includes(text) ? categories.indexOf(text) + 1 : UNKNOWN);

/**
 * What a model takes of rows of cells.
 *
 * @param {Column[]} columns  `card.columns`
 * @param {Cells[]} rows  one for each picture
 * @returns {Float32Array} rows x columns: numbers as they are, categories as their index from 1
 * @throws {Error} where a row names a column that the model does not have, or a cell of a number holds none
 */
export function encodeCells(columns, rows) {
  const known = new Set(columns.map(({ name }) => name));
  for (const name of rows.flatMap(Object.keys)) {
    if (!known.has(name)) {
      throw new Error(`The model takes no column ${name}. Expected: ${[...known].join(", ") || "a picture alone"}.`);
    }
  }
  // A column may be called as something that every object has.
  const cellOf = (row, name) => (Object.hasOwn(row, name) ? row[name] : null);
  return Float32Array.from(rows.flatMap((row) => columns.map((column) => encoded(column, cellOf(row, column.name)))));
}
