/** The timing gutter: what each line of a cell cost, beside the line. */

import { Compartment, RangeSet, RangeSetBuilder, StateEffect, StateField, type Extension, type Text } from "@codemirror/state";
import { Decoration, EditorView, GutterMarker, ViewPlugin, gutter, type DecorationSet } from "@codemirror/view";
import { notices, onNotice, type CellLine } from "../board";
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

const setLit = StateEffect.define<number[]>();
const litLine = Decoration.line({ class: "tinyviz-lit-line", attributes: { title: "tinyviz: belongs to what is selected" } });

/** The lines that belong to what is selected in a view. */
const litLines = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(value, transaction) {
    let next = value.map(transaction.changes);
    for (const effect of transaction.effects) {
      if (effect.is(setLit)) next = Decoration.set(effect.value.map(line => litLine.range(transaction.state.doc.line(line).from)));
    }
    return next;
  },
  provide: field => EditorView.decorations.from(field),
});

/** What was recorded for a line stands beside it only as long as the line reads as it did. */
function still(doc: Text, { line, text }: CellLine): boolean {
  return line >= 1 && line <= doc.lines && doc.line(line).text.trim() === text.trim();
}

/** Numbers from a saved recording, for a cell that no kernel told about. */
function saved(cell: string, doc: Text): CellCosts | null {
  for (const { recording, numbers } of notices()) {
    const lines = numbers.filter(each => each.cell === cell && still(doc, each)).map(({ cell: _cell, text: _text, ...cost }): LineCost => cost);
    if (lines.length > 0) return { cell, recording, lines, total: null };
  }
  return null;
}

function litIn(cell: string, doc: Text): number[] {
  const lines = notices().flatMap(({ lit }) => lit.filter(each => each.cell === cell && still(doc, each)).map(each => each.line));
  return [...new Set(lines)].sort((a, b) => a - b);
}

const theme = EditorView.baseTheme({
  ".tinyviz-lit-line": {
    background: "color-mix(in srgb, var(--jp-brand-color1) 16%, transparent)",
    boxShadow: "inset 3px 0 0 var(--jp-brand-color1)",
  },
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
  const costsOf = (doc: Text) => store.get(cell) ?? saved(cell, doc);
  const column = gutter({
    class: "tinyviz-gutter",
    markers: view => view.state.field(markers),
    domEventHandlers: {
      click: (view, block) => {
        const recording = costsOf(view.state.doc)?.recording;
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
    let costs: CellCosts | null = null;
    let lit = "";
    const look = () => {
      const { doc } = view.state;
      const now = costsOf(doc);
      const lines = litIn(cell, doc);
      const effects: StateEffect<unknown>[] = [];
      if (JSON.stringify(now) !== JSON.stringify(costs)) effects.push(setCosts.of(now), place.reconfigure(shown(now)));
      if (lines.join() !== lit) effects.push(setLit.of(lines));
      [costs, lit] = [now, lines.join()];
      if (effects.length > 0) view.dispatch({ effects });
    };
    const changed = (_store: CostStore, id: string) => void (id === cell && look());
    store.changed.connect(changed);
    const unsubscribe = onNotice(look);
    // Not now: an editor cannot be changed while it is being made.
    void Promise.resolve().then(look);
    return {
      destroy: () => {
        store.changed.disconnect(changed);
        unsubscribe();
      },
    };
  });
  return [markers, litLines, place.of([]), follower, theme];
}
