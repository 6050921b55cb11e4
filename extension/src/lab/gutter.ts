/** The timing gutter: what each line of a cell cost, beside the line. */

import { Compartment, RangeSet, RangeSetBuilder, StateEffect, StateField, type Extension, type Text } from "@codemirror/state";
import { EditorView, GutterMarker, ViewPlugin, gutter } from "@codemirror/view";
import { selectionOf } from "../selection";
import { bytes, count, seconds } from "../units";
import type { CellCosts, CostStore, LineCost } from "./costs";

class CostMarker extends GutterMarker {
  // Keeps a marker with its line when text is inserted at the line's start.
  override startSide = 1;
  override endSide = 1;

  constructor(readonly cost: LineCost, readonly share: number | null) {
    super();
  }

  override eq(other: GutterMarker): boolean {
    return other instanceof CostMarker && other.share === this.share && describe(other.cost) === describe(this.cost);
  }

  override toDOM(): Node {
    const mark = document.createElement("div");
    mark.className = "tinyviz-cost";
    mark.textContent = seconds(this.cost.seconds ?? this.cost.seconds_predicted);
    mark.classList.toggle("tinyviz-predicted", this.cost.seconds == null && this.cost.seconds_predicted != null);
    mark.dataset.line = String(this.cost.line);
    mark.title = describe(this.cost);
    if (this.share !== null) mark.style.setProperty("--tinyviz-share", `${(100 * this.share).toFixed(1)}%`);
    return mark;
  }
}

/** Every number of a line, in words. */
export function describe(cost: LineCost): string {
  const parts: [string, unknown, string][] = [
    ["measured", cost.seconds, seconds(cost.seconds)],
    ["predicted", cost.seconds_predicted, seconds(cost.seconds_predicted)],
    ["read", cost.bytes_read, bytes(cost.bytes_read)],
    ["written", cost.bytes_written, bytes(cost.bytes_written)],
    ["FLOPs", cost.flops, count(cost.flops)],
    ["launches", cost.launches, count(cost.launches)],
  ];
  return parts.filter(([, value]) => value != null).map(([name, , text]) => `${name} ${text}`).join(" · ");
}

const setCosts = StateEffect.define<CellCosts | null>();

const markers = StateField.define<RangeSet<CostMarker>>({
  create: () => RangeSet.empty,
  update(value, transaction) {
    let next = value.map(transaction.changes);
    for (const effect of transaction.effects) if (effect.is(setCosts)) next = build(transaction.state.doc, effect.value);
    return next;
  },
});

function build(doc: Text, costs: CellCosts | null): RangeSet<CostMarker> {
  const builder = new RangeSetBuilder<CostMarker>();
  const lines = (costs?.lines ?? []).filter(cost => cost.line <= doc.lines).sort((a, b) => a.line - b.line);
  const most = Math.max(...lines.map(cost => cost.seconds ?? 0));
  for (const cost of lines) {
    const { from } = doc.line(cost.line);
    builder.add(from, from, new CostMarker(cost, most > 0 && cost.seconds != null ? cost.seconds / most : null));
  }
  return builder.finish();
}

const theme = EditorView.baseTheme({
  ".tinyviz-gutter": { fontSize: "0.85em", fontVariantNumeric: "tabular-nums" },
  ".tinyviz-cost": {
    padding: "0 6px",
    textAlign: "right",
    whiteSpace: "nowrap",
    cursor: "pointer",
    color: "var(--jp-content-font-color2)",
    background:
      "linear-gradient(to left, color-mix(in srgb, var(--jp-brand-color1) 30%, transparent) var(--tinyviz-share, 0%), transparent 0)",
  },
  ".tinyviz-cost.tinyviz-predicted": { fontStyle: "italic" },
});

/** The extension for the editor of one cell. */
export function timingGutter(cell: string, store: CostStore): Extension {
  const column = gutter({
    class: "tinyviz-gutter",
    markers: view => view.state.field(markers),
    domEventHandlers: {
      click: (view, block) => {
        const recording = store.get(cell)?.recording;
        if (!recording) return false;
        view.state.field(markers).between(block.from, block.from, (_from, _to, marker) => {
          if (marker.cost.id != null) selectionOf(recording).set({ kind: "line", id: marker.cost.id });
        });
        return true;
      },
    },
  });
  // A cell without numbers gets no empty column.
  const place = new Compartment();
  const shown = (costs: CellCosts | null) => (costs && costs.lines.length > 0 ? column : []);

  const follower = ViewPlugin.define(view => {
    const changed = (_store: CostStore, id: string) => {
      if (id !== cell) return;
      const costs = store.get(cell);
      view.dispatch({ effects: [setCosts.of(costs), place.reconfigure(shown(costs))] });
    };
    store.changed.connect(changed);
    return { destroy: () => void store.changed.disconnect(changed) };
  });
  const now = store.get(cell);
  return [markers.init(state => build(state.doc, now)), place.of(shown(now)), follower, theme];
}
