/**
 * Draws a saved output (the custom MIME type) when a notebook is opened, trusted or not, kernel or not. Where the kernel still
 * has the widget that made the output, the output is handed to that widget instead: one view, live or not.
 */

import type { DocumentRegistry } from "@jupyterlab/docregistry";
import type { INotebookModel, NotebookPanel } from "@jupyterlab/notebook";
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import type { Kernel } from "@jupyterlab/services";
import { Panel, Widget } from "@lumino/widgets";
import { MIME, readSaved } from "../bundle";
import { fail, message, mount } from "../mount";
import type { Cleanup } from "../views/view";

const WIDGET_MIME = "application/vnd.jupyter.widget-view+json";

/** Lower ranks are preferred; ipywidgets' renderer has 0, and -10 once it is bound to a notebook. */
const RANK = -20;

/** One output of a notebook, in its cell or docked beside it. */
export class Output extends Panel implements IRenderMime.IRenderer {
  private readonly still = new Widget();
  private undo: Cleanup = () => undefined;
  private model: IRenderMime.IMimeModel | null = null;
  private live: IRenderMime.IRenderer | null = null;
  private turn = 0;

  constructor(private readonly panel: NotebookPanel | null) {
    super();
    this.addClass("tinyviz-output");
    this.addWidget(this.still);
    panel?.sessionContext.statusChanged.connect(this.onStatus, this);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.model = model;
    if (!(await this.attach())) await this.draw();
  }

  override dispose(): void {
    if (this.isDisposed) return;
    this.panel?.sessionContext.statusChanged.disconnect(this.onStatus, this);
    this.undo();
    super.dispose();
  }

  private get kernel(): Kernel.IKernelConnection | null {
    return this.panel?.sessionContext.session?.kernel ?? null;
  }

  private get modelId(): string | null {
    const view = this.model?.data[WIDGET_MIME] as { model_id?: unknown } | undefined;
    return typeof view?.model_id === "string" ? view.model_id : null;
  }

  /** A widget comes alive when the kernel answers after a reload, and dies when the kernel does. */
  private onStatus(_: unknown, status: Kernel.Status): void {
    if (status === "idle" && this.live === null) void this.attach();
    else if (this.live && (status === "restarting" || status === "autorestarting" || status === "terminating" || status === "dead")) {
      this.live.dispose();
      this.live = null;
      void this.draw();
    }
  }

  private async attach(): Promise<boolean> {
    const { model, modelId, panel } = this;
    if (!model || !panel || !modelId || !this.kernel?.hasComm(modelId)) return false;
    const turn = ++this.turn;
    const live = panel.content.rendermime.createRenderer(WIDGET_MIME);
    this.live = live;
    try {
      await live.renderModel(model);
    } catch (error) {
      console.warn("tinyviz: no live view of this output", error);
      live.dispose();
      this.live = null;
      return false;
    }
    if (turn !== this.turn || this.isDisposed) return true;
    this.undo();
    this.undo = () => undefined;
    this.still.hide();
    this.addWidget(live);
    return true;
  }

  private async draw(): Promise<void> {
    const turn = ++this.turn;
    const text = String(this.model?.data["text/plain"] ?? "");
    try {
      const bundle = await readSaved(this.model?.data[MIME]);
      if (turn !== this.turn || this.isDisposed) return;
      this.undo();
      this.undo = mount(this.still.node, bundle);
      this.still.show();
    } catch (error) {
      console.error("tinyviz: no data", error);
      if (turn === this.turn) fail(this.still.node, `tinyviz could not read this output: ${message(error)}`, text);
    }
  }
}

export function rendererFactory(panel: NotebookPanel | null): IRenderMime.IRendererFactory {
  return { safe: true, mimeTypes: [MIME], defaultRank: RANK, createRenderer: () => new Output(panel) };
}

/** Gives each notebook a renderer that knows its kernel. */
export class NotebookRenderers implements DocumentRegistry.IWidgetExtension<NotebookPanel, INotebookModel> {
  createNew(panel: NotebookPanel): void {
    panel.content.rendermime.addFactory(rendererFactory(panel), RANK);
  }
}
