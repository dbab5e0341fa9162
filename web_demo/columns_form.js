/** The form for what stands beside the picture: a labelled field for each column of the card. */

import { element } from "./answers.js";
import { textOf } from "./columns.js";

/**
 * @typedef {import("./columns.js").Column} Column
 * @typedef {import("./columns.js").Cells} Cells
 */

/**
 * Let a form ask for columns.
 *
 * @param {HTMLFormElement} form  hidden while there is nothing to ask
 * @param {HTMLElement} fields  what the fields go into
 * @param {() => void} changed  called when somebody says something else
 * @returns {{shape: (columns: Column[]) => void, fill: (cells: Cells) => void, cells: () => Cells}}  ask for other columns,
 *   which keeps what is said where they are the same; fill the fields in; read them, which throws where a number is none
 */
export function startColumnsForm(form, fields, changed) {
  /** @type {Map<string, HTMLInputElement | HTMLSelectElement>} */
  const inputs = new Map();
  let shown = "";

  function shape(columns) {
    const wanted = JSON.stringify(columns);
    if (wanted === shown) return;
    shown = wanted;
    inputs.clear();
    fields.replaceChildren(...columns.map(fieldOf));
    form.hidden = columns.length === 0;
  }

  function fieldOf(column) {
    const input = column.kind === "category" ? choiceOf(column) : numberField(column);
    input.dataset.testid = `column-${column.name}`;
    input.name = column.name;
    inputs.set(column.name, input);
    return element("label", "", element("span", "name", column.name), input);
  }

  function fill(cells) {
    for (const [name, input] of inputs) {
      input.value = Object.hasOwn(cells, name) ? textOf(cells[name]) : "";
      // A choice that is not offered leaves a select with nothing chosen.
      if ("selectedIndex" in input && input.selectedIndex === -1) input.value = "";
    }
  }

  function cells() {
    const said = [...inputs].map(([name, input]) => {
      const wrong = input.validity.badInput;
      input.setAttribute("aria-invalid", String(wrong));
      if (wrong) throw new Error(`${name} is not a number. Write one such as 3.5, or nothing.`);
      return [name, input.value];
    });
    return Object.fromEntries(said);
  }

  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  return { shape, fill, cells };
}

function choiceOf({ categories }) {
  const select = document.createElement("select");
  select.add(new Option(categories.includes("unknown") ? "not known" : "unknown", ""));
  for (const each of categories) select.add(new Option(each, each));
  return select;
}

function numberField(column) {
  const input = document.createElement("input");
  Object.assign(input, { type: "number", step: "any", inputMode: "decimal", autocomplete: "off" });
  input.placeholder = `usual: ${Number(column.default.toPrecision(4))}`;
  return input;
}
