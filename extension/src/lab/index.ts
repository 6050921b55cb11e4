/** What only JupyterLab can have: saved outputs that draw themselves, a timing gutter, a meter in the status bar. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import type { ICellModel } from "@jupyterlab/cells";
import { EditorExtensionRegistry, IEditorExtensionRegistry } from "@jupyterlab/codemirror";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";
import { IStatusBar } from "@jupyterlab/statusbar";
import { Widget } from "@lumino/widgets";
import { bytes, seconds, some } from "../units";
import { follow } from "./channel";
import { CostStore } from "./costs";
import { explorer } from "./explorer";
import { timingGutter } from "./gutter";
import { NotebookRenderers, rendererFactory } from "./renderer";

const renderer: JupyterFrontEndPlugin<void> = {
  id: "tinyviz-lab:renderer",
  description: "Draws tinyviz's outputs, live or saved",
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (app: JupyterFrontEnd, rendermime: IRenderMimeRegistry) => {
    const fallback = rendererFactory(null);
    rendermime.addFactory(fallback, fallback.defaultRank);
    app.docRegistry.addWidgetExtension("Notebook", new NotebookRenderers());
  },
};

const gutter: JupyterFrontEndPlugin<void> = {
  id: "tinyviz-lab:gutter",
  description: "Shows beside each line of a cell what it cost",
  autoStart: true,
  requires: [IEditorExtensionRegistry, INotebookTracker],
  optional: [IStatusBar],
  activate: (
    _app: JupyterFrontEnd,
    editors: IEditorExtensionRegistry,
    notebooks: INotebookTracker,
    statusBar: IStatusBar | null,
  ) => {
    const costs = new CostStore();
    editors.addExtension({
      name: "tinyviz-lab:gutter",
      factory: ({ model }) => {
        const { id, type } = model as Partial<ICellModel>;
        if (type !== "code" || id === undefined) return null;
        return EditorExtensionRegistry.createImmutableExtension(timingGutter(id, costs));
      },
    });
    notebooks.forEach(panel => follow(panel.sessionContext, costs));
    notebooks.widgetAdded.connect((_, panel) => follow(panel.sessionContext, costs));
    statusBar?.registerStatusItem("tinyviz-lab:meter", { item: meter(costs), align: "right", rank: 50 });
  },
};

/** The totals of the cell that ran last; empty until one did. */
function meter(costs: CostStore): Widget {
  const item = new Widget();
  item.addClass("tinyviz-meter");
  item.title.caption = "tinyviz: the watched cell that ran last";
  item.node.title = item.title.caption;
  costs.changed.connect(() => {
    const total = costs.latest?.total;
    const moved = total?.bytes_read != null && total.bytes_written != null ? bytes(total.bytes_read + total.bytes_written) : null;
    item.node.textContent = !total
      ? ""
      : [
          seconds(total.seconds ?? total.seconds_predicted),
          total.launches == null ? null : some(total.launches, "launch"),
          moved,
        ].filter(part => part !== null).join(" · ");
  });
  return item;
}

export default [renderer, gutter, explorer];
