/** The widget's ES module, in the shape that anywidget loads. The traits are those of `tinyviz/widget.py`. */

import { gunzip, type Bundle } from "./bundle";
import { fail, message, mount } from "./mount";
import { asSelection, selectionOf, type Selection } from "./selection";
import type { Cleanup, Host } from "./views/view";

interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
}

async function render({ model, el }: { model: Model; el: HTMLElement }): Promise<Cleanup> {
  let undo: Cleanup = () => undefined;
  let closed = false;
  let turn = 0;

  const show = async () => {
    const mine = ++turn;
    try {
      const bundle = await gunzip(await payload(model));
      if (closed || mine !== turn) return;
      undo();
      const unbind = bind(model, bundle);
      const { host, close } = hostOf(model);
      const unmount = mount(el, bundle, host);
      undo = () => {
        unbind();
        unmount();
        close();
      };
    } catch (error) {
      console.error("tinyviz: no data", error);
      if (!closed && mine === turn) fail(el, `tinyviz could not read the data of this view: ${message(error)}`, String(model.get("text")));
    }
  };
  const changed = () => void show();
  model.on("change:payload", changed);
  await show();
  return () => {
    closed = true;
    model.off("change:payload", changed);
    undo();
  };
}

/** The bytes of the trait, or, where they are too many for one message, its parts as the kernel sends them when asked. */
async function payload(model: Model): Promise<Uint8Array<ArrayBuffer>> {
  const whole = bytesOf(model.get("payload"));
  if (whole.length > 0) return whole;
  return new Promise(resolve => {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const receive = (content: { type?: string; part: number; parts: number }, buffers: DataView<ArrayBuffer>[]) => {
      if (content.type !== "payload" || !buffers[0]) return;
      parts[content.part] = bytesOf(buffers[0]);
      if (parts.filter(Boolean).length < content.parts) return;
      model.off("msg:custom", receive);
      void new Blob(parts).arrayBuffer().then(buffer => resolve(new Uint8Array(buffer)));
    };
    model.on("msg:custom", receive);
    model.send({ type: "payload" });
  });
}

function bytesOf(value: unknown): Uint8Array<ArrayBuffer> {
  if (value instanceof DataView) return new Uint8Array(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength);
  if (value instanceof Uint8Array) return value as Uint8Array<ArrayBuffer>;
  return new Uint8Array();
}

/** The page's selection and the kernel's trait follow each other. */
function bind(model: Model, bundle: Bundle): Cleanup {
  const store = selectionOf(bundle.recording);
  const fromKernel = () => store.set(asSelection(model.get("selection")));
  const toKernel = (selection: Selection | null) => {
    model.set("selection", selection);
    model.save_changes();
  };
  const fromPage = store.subscribe(toKernel);
  // The first view on a page takes the kernel's selection; a later one brings the page's to its own model.
  if (store.value === null) fromKernel();
  else toKernel(store.value);
  model.on("change:selection", fromKernel);
  return () => {
    fromPage();
    model.off("change:selection", fromKernel);
  };
}

interface Reply {
  type?: string;
  id?: number;
  data?: unknown;
  error?: string;
  text?: string;
}

let questions = 0;

/** Questions go out with a number; the answer with that number comes when the kernel is free. */
function hostOf(model: Model): { host: Host; close: Cleanup } {
  const waiting = new Map<number, { resolve: (data: never) => void; reject: (error: Error) => void; progress: ((text: string) => void) | undefined }>();
  const receive = ({ type, id, data, error, text }: Reply) => {
    const asked = waiting.get(id ?? -1);
    if (!asked) return;
    if (type === "progress") asked.progress?.(String(text));
    if (type !== "answer") return;
    waiting.delete(id!);
    if (error === undefined) asked.resolve(data as never);
    else asked.reject(new Error(error));
  };
  model.on("msg:custom", receive);
  const host: Host = {
    live: model.get("editable") !== undefined, // an exported page's model has no such trait, and nobody behind it
    editable: model.get("editable") === true,
    send: content => model.send(content),
    ask: (question, progress) => new Promise((resolve, reject) => {
      const id = ++questions;
      waiting.set(id, { resolve, reject, progress });
      model.send({ type: "ask", id, ...question });
    }),
  };
  const close = () => {
    model.off("msg:custom", receive);
    waiting.forEach(({ reject }) => reject(new Error("the view was closed")));
  };
  return { host, close };
}

export default { render };
