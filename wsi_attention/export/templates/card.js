
// Inside the list of many slides, this page tells how high it is, and is told how slides are shown.
if (window.parent !== window) {
  document.body.className = "inside";
  const tell = () => window.parent.postMessage({ height: document.body.scrollHeight }, "*");
  new ResizeObserver(tell).observe(document.body);
  tell(); // a frame outside the window is not drawn, and observes nothing
  window.addEventListener("message", ({ source, data }) => {
    if (source !== window.parent || !maps.includes(data?.map) || !(data.opacity >= 0 && data.opacity <= 100)) return;
    show({ map: data.map, opacity: Number(data.opacity), tiles: data.tiles === true, unseen: data.unseen === true });
  });
}
