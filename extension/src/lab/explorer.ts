/** The command that docks the explorer beside the notebook. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, MainAreaWidget, showErrorMessage } from "@jupyterlab/apputils";
import type { ICodeCellModel } from "@jupyterlab/cells";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import { MIME } from "../bundle";
import { Output } from "./renderer";

export const OPEN = "tinyviz:open-explorer";

/** The output of tinyviz that is meant: the active cell's, else the last of the notebook. */
export function outputOf(panel: NotebookPanel): IRenderMime.IMimeModel["data"] | null {
  const { activeCell, widgets } = panel.content;
  for (const cell of [activeCell, ...[...widgets].reverse()]) {
    if (cell?.model.type !== "code") continue;
    const outputs = (cell.model as ICodeCellModel).outputs.toJSON().reverse();
    for (const output of outputs) {
      const data = output.data as IRenderMime.IMimeModel["data"] | undefined;
      if (data && MIME in data) return data;
    }
  }
  return null;
}

export const explorer: JupyterFrontEndPlugin<void> = {
  id: "tinyviz-lab:explorer",
  description: "Docks tinyviz's explorer beside the notebook",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette],
  activate: (app: JupyterFrontEnd, notebooks: INotebookTracker, palette: ICommandPalette | null) => {
    app.commands.addCommand(OPEN, {
      label: "tinyviz: open explorer beside",
      caption: "Shows the last view of tinyviz in this notebook beside it; both share one selection",
      isEnabled: () => notebooks.currentWidget !== null,
      execute: async () => {
        const panel = notebooks.currentWidget;
        const data = panel && outputOf(panel);
        if (!data) return showErrorMessage("tinyviz", "This notebook has no output of tinyviz yet: run a cell with %%watch, or one that ends with a recording's view.");
        const content = new Output(panel);
        content.addClass("tinyviz-docked");
        const beside = new MainAreaWidget({ content });
        beside.title.label = "tinyviz";
        beside.title.caption = `tinyviz: ${panel.title.label}`;
        beside.title.closable = true;
        app.shell.add(beside, "main", { mode: "split-right", ref: panel.id });
        panel.disposed.connect(() => beside.dispose());
        return content.renderModel({ data, metadata: {}, trusted: true, setData: () => undefined });
      },
    });
    palette?.addItem({ command: OPEN, category: "tinyviz" });
  },
};
