// The part of the address behind #, which opens a slide at a place: slide=NAME&x=X&y=Y&zoom=ZOOM.
// x and y are the middle of the view in level-0 pixels, zoom is CSS pixels of the screen per level-0 pixel.

const number = (text) => (text === null || text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text));

export function placeIn(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, "").replaceAll("+", "%2B"));
  const [x, y, zoom] = ["x", "y", "zoom"].map((name) => number(parts.get(name)));
  return { slide: parts.get("slide"), x, y, zoom: zoom > 0 ? zoom : null };
}

const short = (value) => String(Number(value.toPrecision(6)));

export function linkTo(slide, x, y, zoom) {
  return `#slide=${encodeURIComponent(slide)}&x=${Math.round(x)}&y=${Math.round(y)}&zoom=${short(zoom)}`;
}

// Moves a view to what a link says; what it leaves out stays: the whole slide, or full resolution at a place.
export function goToPlace(view, { x, y, zoom }) {
  if (x === null || y === null) return;
  view.centre(x, y, zoom ?? 1);
}
