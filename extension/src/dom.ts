/** Elements, made in one call. Text always becomes a text node: data is never markup. */

type Child = Node | string | null | undefined | false;
type Value = string | number | boolean | null | undefined;

const SVG = "http://www.w3.org/2000/svg";

/** h("button.tv-tab", {title: "…"}, "text", child): the part behind a dot is the class. Attributes that are null or false are left out. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  name: Tag | `${Tag}.${string}`, attributes: Record<string, Value> = {}, ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag as Tag);
  if (classes.length > 0) made.className = classes.join(" ");
  return fill(made, attributes, children);
}

export function s<Tag extends keyof SVGElementTagNameMap>(
  name: Tag | `${Tag}.${string}`, attributes: Record<string, Value> = {}, ...children: Child[]
): SVGElementTagNameMap[Tag] {
  const [tag, ...classes] = name.split(".");
  const made = document.createElementNS(SVG, tag as Tag);
  if (classes.length > 0) made.setAttribute("class", classes.join(" "));
  return fill(made, attributes, children);
}

function fill<E extends Element>(made: E, attributes: Record<string, Value>, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) made.append(child);
  return made;
}

export function button(label: Child, press: (event: MouseEvent) => void, attributes: Record<string, Value> = {}): HTMLButtonElement {
  const made = h("button.tv-button", { type: "button", ...attributes }, label);
  made.addEventListener("click", press);
  return made;
}

/** Our own keys must not reach the notebook, which would take j, k and others for commands. */
export function taken(event: Event): void {
  event.preventDefault();
  event.stopPropagation();
}

/** At most `width` characters; an ellipsis shows the cut. */
export function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(width - 1, 0))}…`;
}

let ids = 0;
/** An id that no other element of the page has. */
export const fresh = (word: string): string => `tinyviz-${word}-${++ids}`;
