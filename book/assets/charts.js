// Draws every chart of a page from the specification beside it. cpadapt/book.py bundles this with Vega-Lite.

async function draw(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const live = figure.querySelector(".chart-live");
  figure.classList.add("chart-drawn"); // before drawing, so that the chart's column has a width
  try {
    // As SVG text and lines take the page's colour. No menu, which would cover marks on a phone.
    await vegaEmbed(live, spec, { renderer: "svg", actions: false });
  } catch (error) {
    figure.classList.remove("chart-drawn");
    console.error(error);
  }
}

// Vega-Lite measures a chart's column when the window is resized, while the sidebars may still be on their way.
const settled = lodashDebounce(() => window.dispatchEvent(new Event("resize")), 100);
const columns = new ResizeObserver(settled);

for (const figure of document.querySelectorAll("figure.chart")) {
  draw(figure);
  columns.observe(figure);
}
