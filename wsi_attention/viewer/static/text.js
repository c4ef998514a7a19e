// Numbers as people read them.

export function length(micrometres) {
  return Math.abs(micrometres) >= 1000 ? `${(micrometres / 1000).toFixed(2)} mm` : `${micrometres.toFixed(0)} µm`;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.001 ? 2 : 1)} %`;

const OBJECTIVE = 10; // at 10 times a pixel is 1 µm wide, at 20 times 0.5 µm: what scanners mean by it

// What is on the screen: "×20 · 0.50 µm/px"; beyond the slide's own pixels it says that they are enlarged.
export function magnification(scale, mpp) {
  const own = mpp / scale;
  const times = OBJECTIVE / own;
  const shown = times >= 10 ? times.toFixed(0) : Number(times.toPrecision(2));
  return `×${shown} · ${own >= 10 ? own.toFixed(0) : own.toFixed(2)} µm/px${scale > 1.001 ? ", enlarged" : ""}`;
}

export const scaleOf = (times, mpp) => (times * mpp) / OBJECTIVE;

// The longest round length of a bar that is at most `room` CSS pixels wide: [text, CSS pixels].
export function barOf(scale, mpp, room = 140) {
  const widest = (room / scale) * mpp;
  const power = 10 ** Math.floor(Math.log10(widest));
  const round = [5, 2, 1].find((step) => step * power <= widest) * power;
  return [round >= 1000 ? `${round / 1000} mm` : `${Number(round.toPrecision(1))} µm`, (round / mpp) * scale];
}

export function labelText(facts) {
  return `${facts.label}${facts.probability === null ? "" : ` ${facts.probability.toFixed(3)}`}`;
}
