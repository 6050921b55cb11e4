/**
 * The bundle: one view's data as it travels from Python, in a widget's traits, in a saved notebook or in an exported page.
 * `tinyviz/widget.py` writes it; both sides refuse a version that they do not know.
 */

export const MIME = "application/vnd.tinyviz+json";
export const VERSION = 1;

export interface Bundle {
  /** the name of the view that draws `data` */
  view: string;
  /** content id of the recording: views of one recording share one selection */
  recording: string;
  data: unknown;
  /** the view's text twin, shown where the view cannot be */
  text: string;
}

/** As saved in a notebook: the bundle itself, or the bundle as base64 of its gzipped JSON. */
export interface SavedBundle {
  tinyviz: number;
  bundle?: Bundle;
  gzip?: string;
}

export class BundleError extends Error {}

export async function readSaved(saved: unknown): Promise<Bundle> {
  const { tinyviz, bundle, gzip } = (saved ?? {}) as Partial<SavedBundle>;
  if (tinyviz !== VERSION) {
    throw new BundleError(`saved as version ${String(tinyviz)}; this front end reads version ${VERSION}`);
  }
  if (bundle !== undefined) return checked(bundle);
  if (typeof gzip !== "string") throw new BundleError("the saved output holds no data");
  return gunzip(fromBase64(gzip));
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0));
  } catch (error) {
    throw new BundleError(`damaged data: ${String(error)}`);
  }
}

export async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Bundle> {
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return checked(await new Response(stream).json());
  } catch (error) {
    throw error instanceof BundleError ? error : new BundleError(`damaged data: ${String(error)}`);
  }
}

function checked(value: unknown): Bundle {
  const { view, recording, text } = (value ?? {}) as Partial<Bundle>;
  if (typeof view !== "string" || typeof recording !== "string" || typeof text !== "string") {
    throw new BundleError("damaged data: view, recording or text is missing");
  }
  return value as Bundle;
}
