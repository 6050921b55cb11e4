/** Light or dark, as the host draws: read off the ground colour, and again whenever the host changes its theme. */

export type Ground = "light" | "dark";

/** Sets `data-ground` on `root` and keeps it true. `changed` hears of it after the first time. */
export function followTheme(root: HTMLElement, changed: () => void = () => undefined): () => void {
  const set = () => {
    const now = groundOf(getComputedStyle(root).backgroundColor);
    if (root.dataset.ground === now) return;
    const first = root.dataset.ground === undefined;
    root.dataset.ground = now;
    if (!first) changed();
  };
  // A theme's style sheet may arrive after the attribute that announces it.
  const soon = () => {
    set();
    setTimeout(set, 300);
  };
  const observer = new MutationObserver(soon);
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-jp-theme-name"] });
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", soon);
  set();
  return () => {
    observer.disconnect();
    system.removeEventListener("change", soon);
  };
}

/** Of a CSS colour as browsers compute it: rgb(…), rgba(…) or color(srgb …). */
export function groundOf(color: string): Ground {
  const parts = color.match(/[\d.]+/g)?.map(Number) ?? [];
  if (parts.length < 3 || parts[3] === 0) return "light";
  const scale = color.startsWith("color(") ? 1 : 255;
  return (0.2126 * parts[0]! + 0.7152 * parts[1]! + 0.0722 * parts[2]!) / scale < 0.5 ? "dark" : "light";
}
