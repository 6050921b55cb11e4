/** A button that asks the kernel for a measurement: what it says while it waits, what went wrong, or why nobody can answer. */

import { button, h } from "../dom";
import { message } from "../mount";
import { NEEDS_KERNEL, type Context } from "../views/view";

export interface Asking<Answer> {
  label: string;
  title: string;
  question: { what: string } & Record<string, unknown>;
  /** the same in Python, for where no kernel answers */
  python: string;
  /** what is being done meanwhile */
  waiting: string;
  done: (answer: Answer) => void;
}

export function asking<Answer>(context: Context, { label, title, question, python, waiting, done }: Asking<Answer>): HTMLElement {
  const { host } = context;
  const said = h("span", { role: "status", "aria-live": "polite" });
  const ask = async () => {
    key.disabled = true;
    said.replaceChildren(h("span.tv-faint", {}, `${waiting} A busy kernel answers after its cell.`));
    try {
      const answer = await host.ask<Answer>(question, text => said.replaceChildren(h("span.tv-faint", {}, text)));
      said.replaceChildren();
      done(answer);
    } catch (error) {
      said.replaceChildren(h("span.tv-problem", { role: "alert" }, message(error)));
    }
    key.disabled = false;
  };
  const key = button(label, () => void ask(), { disabled: !host.editable, title: host.editable ? title : NEEDS_KERNEL, "data-ask": question.what });
  return h("div.tv-tools.tv-asking", {}, key, said, host.editable ? null : h("span.tv-faint", {}, `– ${NEEDS_KERNEL}. In Python: `, h("code", {}, python)));
}
