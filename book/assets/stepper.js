// The stepper on the CP adapter's page: bars for the vectors of one component, and the update that all components make.

const unit = (raw) => {
  const length = Math.hypot(...raw);
  return length > 1e-12 ? raw.map((entry) => entry / length) : raw;
};
const outer = (column, row) => column.flatMap((a) => row.map((b) => a * b));

// The long vectors of a component, of the rows and of the columns.
const long = (vectors) => [
  outer(unit(vectors.up_0), unit(vectors.up_1)),
  outer(unit(vectors.down_0), unit(vectors.down_1)),
];

// ΔW, row by row.
const update = (components, scale) =>
  components
    .map((vectors) => outer(...long(vectors)).map((entry) => scale * vectors.weight[0] * entry))
    .reduce((sum, part) => sum.map((entry, k) => entry + part[k]));

function start(figure) {
  const { scale, steps, components } = JSON.parse(figure.querySelector("script").textContent);
  let count = 1;
  let chosen = 0;

  function paint(name, values) {
    const largest = Math.max(...values.map(Math.abs)) || 1;
    figure.querySelectorAll(`[data-cells="${name}"] rect`).forEach((cell, k) => {
      cell.setAttribute("class", values[k] < 0 ? "minus" : "plus");
      cell.setAttribute("fill-opacity", Math.sqrt(Math.abs(values[k]) / largest)); // so that weak blocks show too
      cell.firstElementChild.textContent = values[k].toFixed(4);
    });
  }

  function draw() {
    const [up, down] = long(components[chosen]);
    paint("up", up);
    paint("down", down);
    paint("matrix", update(components.slice(0, count), scale));
  }

  function choose(component) {
    chosen = component;
    for (const bars of figure.querySelectorAll("fieldset")) {
      bars.querySelectorAll("input").forEach((bar, k) => {
        bar.value = components[chosen][bars.dataset.vector][k];
        bar.style.setProperty("--at", bar.value);
      });
    }
    const counts = { components: count, cp: count * steps.cp, lora: count * steps.lora };
    for (const place of figure.querySelectorAll("[data-count]")) place.textContent = counts[place.dataset.count];
    shown.forEach((button, s) => {
      button.hidden = s >= count;
      button.setAttribute("aria-pressed", s === chosen);
    });
    add.disabled = count === components.length;
    remove.disabled = count === 1;
    draw();
  }

  function button(text, label, pressed) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", pressed);
    buttons.append(made);
    return made;
  }

  const buttons = document.createElement("div");
  buttons.className = "stepper-buttons";
  const shown = components.map((_, s) => button(s + 1, `Show component ${s + 1}`, () => choose(s)));
  const add = button("+", "Add a component", () => choose(count++));
  const remove = button("−", "Remove the last component", () => choose(--count - 1));
  buttons.append("drag the bars, or use arrow keys");
  figure.querySelector(".stepper-controls").prepend(buttons);

  for (const cell of figure.querySelectorAll("rect")) {
    cell.append(document.createElementNS("http://www.w3.org/2000/svg", "title"));
  }
  for (const bars of figure.querySelectorAll("fieldset")) {
    bars.disabled = false;
    bars.querySelectorAll("input").forEach((bar, k) =>
      bar.addEventListener("input", () => {
        components[chosen][bars.dataset.vector][k] = Number(bar.value);
        bar.style.setProperty("--at", bar.value);
        draw();
      }),
    );
  }
  choose(0);
}

for (const figure of document.querySelectorAll("figure.stepper")) start(figure);
