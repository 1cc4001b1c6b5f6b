// Draws every chart of a page from the specification beside it. companion/sphinx.py bundles this with Vega-Lite.

// The slider of a frontier moves over places in a list of budgets: shows and says the budget instead of the place.
function nameBudget(live, view) {
  const slider = live.querySelector('input[type="range"][name="place"]');
  if (!slider) return;
  const show = (_, budget) => {
    const said = `${budget.toLocaleString("en")} scalars`;
    slider.setAttribute("aria-valuetext", said);
    if (slider.nextElementSibling) slider.nextElementSibling.textContent = said;
  };
  view.addSignalListener("budget", (name, budget) => setTimeout(() => show(name, budget)));
  show("budget", view.signal("budget"));
}

async function draw(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const live = figure.querySelector(".chart-live");
  figure.classList.add("chart-drawn"); // before drawing, so that the chart's column has a width
  try {
    // As SVG text and lines take the page's colour. No menu, which would cover marks on a phone.
    const { view } = await vegaEmbed(live, spec, { renderer: "svg", actions: false });
    nameBudget(live, view);
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
