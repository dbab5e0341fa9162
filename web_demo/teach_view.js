/** The classes that are being taught, as elements: a name, ways to add pictures, and the pictures themselves. */

import { element } from "./answers.js";

const THUMB_PX = 56;

/** "1 picture", "2 pictures". */
export const counted = (count, word = "picture") => `${count} ${word}${count === 1 ? "" : "s"}`;

function button(text, testid, pressed) {
  const made = Object.assign(element("button", "", text), { type: "button" });
  made.dataset.testid = testid;
  made.addEventListener("click", pressed);
  return made;
}

/**
 * Make the elements of a class.
 *
 * @param {{renamed: (name: string) => void, given: (files: File[]) => void, take: () => void, remove: () => void,
 *   dropPicture: (picture: object) => void}} heard  called when somebody does something
 * @returns {{box: HTMLElement, name: HTMLInputElement, number: (index: number) => void, draw: (pictures: object[]) => void}}
 *   `number` says which class it is, counting from 0; `draw` shows its pictures, those that are shown already as they are
 */
export function classElements(heard) {
  const name = Object.assign(document.createElement("input"), { type: "text", maxLength: 60, autocomplete: "off" });
  const files = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", multiple: true });
  const take = button("Add current", "teach-take", heard.take);
  const remove = button("Remove", "teach-remove-class", heard.remove);
  const count = element("p", "note");
  const thumbs = element("ul", "thumbs");
  const legend = document.createElement("legend");
  const choose = element("label", "button", "Add pictures", files);
  const buttons = element("div", "buttons", choose, take, remove);
  const box = element("fieldset", "taught", legend, element("label", "name", "Name", name), buttons, count, thumbs);
  const handles = { "teach-class": box, "teach-class-name": name, "teach-file-input": files, "teach-count": count };
  for (const [testid, each] of Object.entries(handles)) each.dataset.testid = testid;
  name.addEventListener("input", () => heard.renamed(name.value));
  files.addEventListener("change", () => {
    heard.given([...files.files]);
    files.value = "";
  });
  takeDrops(box, heard.given);
  const items = new Map();

  function number(index) {
    legend.textContent = `Class ${index + 1}`;
    for (const each of [...Object.values(handles), take, remove]) each.dataset.class = String(index);
    remove.setAttribute("aria-label", `Remove class ${index + 1}`);
    take.setAttribute("aria-label", `Add current picture to class ${index + 1}`);
    files.setAttribute("aria-label", `Add pictures to class ${index + 1}`);
  }

  function draw(pictures) {
    for (const [picture, item] of items) {
      if (pictures.includes(picture)) continue;
      // Whoever works with the keyboard stays among the pictures.
      const next = item.contains(document.activeElement) && (item.nextSibling ?? item.previousSibling);
      item.remove();
      items.delete(picture);
      if (next !== false) (next?.firstChild ?? files).focus();
    }
    for (const picture of pictures) {
      if (!items.has(picture)) items.set(picture, thumbs.appendChild(thumb(picture, heard.dropPicture)));
    }
    [...thumbs.children].forEach((item, i) => item.firstChild.setAttribute("aria-label", `Remove picture ${i + 1}`));
    count.textContent = counted(pictures.length);
    count.dataset.count = String(pictures.length);
  }

  return { box, name, number, draw };
}

/** A picture, small, as a button that takes it away. */
function thumb(shown, removed) {
  const { data, width, height } = shown.picture;
  const whole = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    for (let c = 0; c < 3; c++) whole.data[to + c] = data[from + c];
    whole.data[to + 3] = 255;
  }
  const canvas = Object.assign(document.createElement("canvas"), { width: THUMB_PX, height: THUMB_PX });
  const sized = new OffscreenCanvas(width, height);
  sized.getContext("2d").putImageData(whole, 0, 0);
  canvas.getContext("2d").drawImage(sized, 0, 0, THUMB_PX, THUMB_PX);
  const press = button(canvas, "teach-picture", () => removed(shown));
  press.className = "thumb";
  return element("li", "", press);
}

/** Let files be dropped on an element; the page, which hears of them too, sees that they are taken. */
function takeDrops(box, given) {
  const over = (is) => box.classList.toggle("over", is);
  box.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  box.addEventListener("dragleave", () => over(false));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    given([...event.dataTransfer.files]);
  });
}
