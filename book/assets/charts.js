// Draws every chart of a page from the specification beside it. cpadapt/book.py bundles this with Vega-Lite.
const still = (figure) => figure.classList.remove("chart-drawn");

async function draw(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const live = figure.querySelector(".chart-live");
  figure.classList.add("chart-drawn"); // before drawing, so that the chart's column has a width
  try {
    await vegaEmbed(live, spec, {
      renderer: "svg", // so that text and lines take the page's colour
      actions: { export: true, source: false, compiled: false, editor: false },
    });
  } catch (error) {
    still(figure);
    console.error(error);
  }
}

document.querySelectorAll("figure.chart").forEach(draw);
