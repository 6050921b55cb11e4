/** The comm between a kernel's `tinyviz.magics` and this page. */

import type { ISessionContext } from "@jupyterlab/apputils";
import type { Kernel } from "@jupyterlab/services";
import { asCosts, type CostStore } from "./costs";

export const TARGET = "tinyviz.gutter";

/** Follows the kernel of a session, through restarts and changes, until the session is disposed of. */
export function follow(session: ISessionContext, costs: CostStore): void {
  const attach = () => {
    const kernel = session.session?.kernel;
    if (kernel) listen(kernel, costs);
  };
  session.kernelChanged.connect(attach);
  attach();
}

function listen(kernel: Kernel.IKernelConnection, costs: CostStore): void {
  kernel.registerCommTarget(TARGET, comm => receive(comm, costs));
  // After the page was reloaded the kernel still has its comm: join it, and ask for what it said before.
  void rejoin(kernel, costs).catch((error: unknown) => console.warn("tinyviz: no timing gutter for this kernel", error));
}

async function rejoin(kernel: Kernel.IKernelConnection, costs: CostStore): Promise<void> {
  const reply = await kernel.requestCommInfo({ target_name: TARGET });
  if (reply.content.status !== "ok") return;
  for (const id of Object.keys(reply.content.comms)) {
    if (kernel.isDisposed || kernel.hasComm(id)) continue;
    const comm = kernel.createComm(TARGET, id);
    receive(comm, costs);
    comm.send({ type: "hello" });
  }
}

function receive(comm: Kernel.IComm, costs: CostStore): void {
  comm.onMsg = message => {
    const data = message.content.data as { type?: string; cell?: string };
    if (data.type === "lines") {
      const given = asCosts(data);
      if (given) costs.set(given);
      else console.warn("tinyviz: not a message about lines", data);
    } else if (data.type === "clear" && typeof data.cell === "string") {
      costs.clear(data.cell);
    }
  };
}
