// The linked frontier: tabs and rates choose one of the measured views, and a cell of it opens its runs, its learning
// curve and its partner. Means and intervals are looked up, as companion/linked_frontier.py computed them; what one
// run has right of its items is divided here.

for (const element of document.querySelectorAll(".linked-frontier")) {
  const data = JSON.parse(element.querySelector("script").textContent);
  const figure = element.querySelector(".linked-frontier-view"), panel = element.querySelector(".linked-frontier-open");
  const HEIGHT = 264, TOP = 30, FOOT = 224; // of the frontier, in pixels; places across are in percent of its width
  const LEFT = 13, RIGHT = 96;
  const HEAD = "head";
  const GAIN = "gain", ACCURACY = "accuracy";

  const fixed = (value, digits = 1) => {
    const text = value.toFixed(digits);
    return Number(text) ? text.replace("-", "−") : text.replace("-", "");
  };
  const signed = (value) => (Number(value.toFixed(1)) > 0 ? "+" : "") + fixed(value);
  const percent = (value) => `${fixed(value)}\u202f%`;
  const count = (value) => value.toLocaleString("en");

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function draw(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const line = (x1, y1, x2, y2, attributes = {}) => draw("line", { x1: `${x1}%`, y1, x2: `${x2}%`, y2, ...attributes });
  const text = (said, x, y, attributes = {}) => draw("text", { x: `${x}%`, y, ...attributes }, said);

  // Of a group's members one is in the order of Tab, and arrows move among them, as in the patterns of ARIA.
  function rove(group, chosen) {
    const members = () => [...group.querySelectorAll("[data-member]")].filter((member) => !member.hidden);
    group.addEventListener("keydown", (event) => {
      const all = members(), at = all.indexOf(document.activeElement);
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const to = { Home: 0, End: all.length - 1 }[event.key] ?? (step && (at + step + all.length) % all.length);
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      for (const member of all) member.setAttribute("tabindex", member === all[to] ? 0 : -1);
      all[to].focus();
      chosen?.(all[to]);
    });
  }

  // Evenly spaced round numbers between two values.
  function ticks(low, high) {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((each) => (high - low) / each <= 6) ?? 50;
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(k * step);
    return found;
  }

  const chosen = { ...data.first, rates: null, shown: GAIN, runs: false };
  const of = (model, task) => data.views.filter((view) => view.model === model && view.task === task);
  const view = () => {
    const all = of(chosen.model, chosen.task);
    return all.find((one) => one.rates === chosen.rates) ?? all[0];
  };
  const head = (one) => one.cells.find((cell) => cell.family === HEAD);

  // The share of its items that a run has right, in percent, and what the figure shows of it.
  const share = (one, cell, run) => (100 * cell.right[run]) / one.items[run];
  const shownOf = (one, cell, run) => share(one, cell, run) - (chosen.shown === GAIN ? share(one, head(one), run) : 0);
  const meanOf = (cell) => (chosen.shown === ACCURACY ? cell.accuracy : (cell.gain ?? [0, 0, 0]));

  function tabs(said, names, choose) {
    const group = make("div", { role: "tablist", "aria-label": said, class: "linked-frontier-tabs" });
    for (const [key, name] of Object.entries(names)) {
      const tab = make("button", { type: "button", role: "tab", "aria-controls": "linked-frontier-chart", "data-member": key }, name);
      tab.addEventListener("click", () => choose(key));
      group.append(tab);
    }
    rove(group, (tab) => choose(tab.dataset.member));
    return group;
  }

  function mark(group, key) {
    for (const tab of group.children) {
      tab.setAttribute("aria-selected", tab.dataset.member === key);
      tab.setAttribute("tabindex", tab.dataset.member === key ? 0 : -1);
    }
  }

  const models = tabs("Model", data.models, (model) => {
    chosen.model = model;
    if (!of(model, chosen.task).length) chosen.task = data.views.find((one) => one.model === model).task;
    show();
  });
  const tasks = tabs("Task", data.tasks, (task) => {
    chosen.task = task;
    show();
  });
  const rates = make("select", { name: "rates" });
  rates.addEventListener("input", () => {
    chosen.rates = rates.value;
    show();
  });
  const measure = make(
    "select", { name: "shown" },
    make("option", { value: GAIN }, "points over the head alone"), make("option", { value: ACCURACY }, "accuracy"),
  );
  measure.addEventListener("input", () => {
    chosen.shown = measure.value;
    show();
  });
  const everyRun = make("input", { type: "checkbox", name: "runs" });
  everyRun.addEventListener("input", () => {
    chosen.runs = everyRun.checked;
    show();
  });
  const runsName = make("span");
  const options = make(
    "div", { class: "linked-frontier-options" },
    make("label", {}, "Rates ", rates), make("label", {}, "Show ", measure), make("label", {}, everyRun, " ", runsName),
  );
  const chart = make("div", { id: "linked-frontier-chart", role: "tabpanel", class: "linked-frontier-chart" });
  const said = make("p", { class: "linked-frontier-said", "aria-live": "polite" });
  const details = make("div", { class: "linked-frontier-details" });
  rove(chart);

  function show() {
    mark(models, chosen.model);
    mark(tasks, chosen.task);
    for (const tab of tasks.children) tab.hidden = !of(chosen.model, tab.dataset.member).length;
    const one = view();
    rates.replaceChildren(...of(chosen.model, chosen.task).map((other) => make("option", {}, other.rates)));
    rates.value = one.rates;
    runsName.textContent = `each ${one.run}`;
    if (!one.cells.some((cell) => cell.name === chosen.cell)) chosen.cell = one.cells.find((cell) => cell.gain).name;
    chart.setAttribute("aria-label", `${data.tasks[one.task]} on ${data.models[one.model]}`);
    chart.replaceChildren(frontier(one), make("p", { class: "linked-frontier-about" }, one.about));
    open(one, chosen.cell);
  }

  function frontier(one) {
    const adapters = one.cells.filter((cell) => cell.family !== HEAD), alone = head(one), floor = meanOf(alone);
    const commonest = one.commonest - (chosen.shown === GAIN ? alone.accuracy[0] : 0);
    const values = [...adapters.flatMap(meanOf), ...floor];
    if (chosen.runs) for (const cell of one.cells) one.runs.forEach((_, run) => values.push(shownOf(one, cell, run)));
    let low = Math.min(...values), high = Math.max(...values);
    const isNear = commonest >= low - (high - low); // else it would flatten the rest
    if (isNear) low = Math.min(low, commonest);
    const room = 0.06 * (high - low);
    [low, high] = [low - room, high + room];
    const isUnder = commonest < floor[0]; // then its name is under its line, and has room above the axis
    const free = 20 / (FOOT - TOP);
    if (isNear && isUnder) low = Math.min(low, (commonest - free * high) / (1 - free));
    const y = (value) => TOP + ((high - value) / (high - low)) * (FOOT - TOP);
    const least = Math.min(...adapters.map((cell) => cell.scalars)) / 1.1, most = Math.max(...adapters.map((cell) => cell.scalars)) * 1.1;
    const x = (scalars) => LEFT + (RIGHT - LEFT) * (Math.log(scalars / least) / Math.log(most / least));

    const svg = draw("svg", { width: "100%", height: HEIGHT, role: "group", "aria-label": chart.getAttribute("aria-label") });
    const title = chosen.shown === GAIN ? "points over the head alone" : "accuracy, %";
    svg.append(text(title, 0, 12), text("trainable scalars", 0, HEIGHT - 4));
    for (const at of ticks(low, high)) {
      svg.append(line(0, y(at), 100, y(at), { class: "grid" }));
      svg.append(text(chosen.shown === GAIN ? signed(at).replace(/\.0$/, "") : fixed(at).replace(/\.0$/, ""), 0, y(at) - 3));
    }
    for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power += 1) {
      for (const times of [1, 2, 5]) {
        const at = times * 10 ** power;
        if (at < least || at > most) continue;
        svg.append(line(x(at), FOOT, x(at), FOOT + 5));
        svg.append(text(at >= 1e6 ? `${at / 1e6}M` : at >= 1000 ? `${at / 1000}k` : at, x(at), FOOT + 18, { "text-anchor": "middle" }));
      }
    }
    svg.append(line(0, FOOT, 100, FOOT));

    const rate = `commonest answer, ${percent(one.commonest)}`;
    if (isNear) {
      svg.append(line(0, y(commonest), 100, y(commonest), { class: "commonest" }));
      svg.append(text(rate, 100, y(commonest) + (isUnder ? 14 : -4), { "text-anchor": "end" }));
    } else svg.append(text(`↓ ${rate}`, 100, HEIGHT - 4, { "text-anchor": "end" }));

    const button = (cell, ...drawn) => {
      const place = chosen.shown === GAIN && cell.family !== HEAD ? `${signed(cell.gain[0])} points over the head alone, ${signed(cell.gain[1])} to ${signed(cell.gain[2])}` : percent(cell.accuracy[0]);
      const label = `${cell.name}, ${cell.scalars ? `${count(cell.scalars)} scalars, ` : ""}${place}`;
      const made = draw("g", { role: "button", tabindex: -1, "data-member": cell.name, "aria-label": label, class: "linked-frontier-cell" }, ...drawn);
      made.prepend(draw("title", {}, label));
      made.addEventListener("click", () => open(one, cell.name));
      made.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        open(one, cell.name);
      });
      return made;
    };

    const floorAt = y(floor[0]);
    const name = `${alone.name}, ${percent(alone.accuracy[0])}`;
    svg.append(
      draw("rect", { x: 0, width: "100%", y: y(floor[2]), height: y(floor[1]) - y(floor[2]), class: "band", fill: data.families[HEAD].colour }),
      button(
        alone,
        line(0, floorAt, 100, floorAt, { class: "head" }),
        draw("rect", { x: "55%", y: floorAt - 22, width: "45%", height: 24, class: "target" }),
        text(name, 100, floorAt - 5, { "text-anchor": "end" }),
      ),
    );

    const families = [...new Set(adapters.map((cell) => cell.family))];
    for (const family of families) {
      const { colour, name: called } = data.families[family], cells = adapters.filter((cell) => cell.family === family);
      const aside = `translate(${family === families[0] ? -5 : 5} 0)`; // so that intervals of one size can be told apart
      const group = draw("g", { transform: aside, class: family, fill: colour, stroke: colour });
      cells.slice(1).forEach((cell, k) => group.append(line(x(cells[k].scalars), y(meanOf(cells[k])[0]), x(cell.scalars), y(meanOf(cell)[0]), { class: "path" })));
      for (const cell of cells) {
        const at = x(cell.scalars), [mean, from, to] = meanOf(cell).map(y);
        const runs = chosen.runs ? one.runs.map((_, run) => draw("circle", { cx: `${at}%`, cy: y(shownOf(one, cell, run)), r: 2.5, class: "run" })) : [];
        group.append(
          button(
            cell, ...runs, line(at, from, at, to, { class: "interval" }),
            draw("circle", { cx: `${at}%`, cy: mean, r: 12, class: "target" }), dot(family, families, at, mean),
          ),
        );
      }
      const [first] = cells, at = x(first.scalars);
      const above = Math.min(...adapters.filter((cell) => Math.abs(x(cell.scalars) - at) < 8).map((cell) => y(meanOf(cell)[2])));
      svg.append(group, text(called, at, above - 7, { "text-anchor": "middle", class: "name" }));
    }
    return svg;
  }

  // Round for the first family and square for the other, for readers who don't see the colours.
  function dot(family, families, at, mean) {
    if (family === families[0]) return draw("circle", { cx: `${at}%`, cy: mean, r: 5.5, class: "dot" });
    return draw("rect", { x: `${at}%`, y: mean - 5, width: 10, height: 10, transform: "translate(-5 0)", class: "dot" });
  }

  function open(one, name) {
    chosen.cell = name;
    const cell = one.cells.find((other) => other.name === name), partner = one.cells[cell.partner];
    for (const drawn of chart.querySelectorAll(".linked-frontier-cell")) {
      const is = drawn.dataset.member;
      drawn.setAttribute("aria-pressed", is === name);
      drawn.setAttribute("tabindex", is === name ? 0 : -1);
      drawn.classList.toggle("linked-frontier-partner", is === partner?.name);
    }
    const range = ([, low, high], print) => `(${print(low)} to ${print(high)})`;
    const parts = [
      `${cell.name}: ${cell.scalars ? `${count(cell.scalars)} scalars, ${cell.setting}` : "no adapter"}.`,
      `Accuracy ${percent(cell.accuracy[0])} ${range(cell.accuracy, fixed)}`
        + (cell.gain ? `, ${signed(cell.gain[0])} points over the head alone ${range(cell.gain, signed)}.` : "."),
    ];
    if (partner) {
      const times = partner.scalars / cell.scalars;
      const size = Math.abs(times - 1) < 0.1 ? "of nearly its size" : `of ${fixed(times)} times its size`;
      parts.push(`Its partner is ${partner.name}, ${size}: ${cell.pair} is ${signed(cell.lead[0])} points ${range(cell.lead, signed)}.`);
    }
    said.textContent = `${parts.join(" ")} Intervals: 95\u202f%.`;
    details.replaceChildren(runTable(one, cell, partner), curve(one, cell), ...(cell.tried ? [rateTable(cell)] : []));
  }

  function table(caption, heads, rows) {
    const cells = (row) => row.map((said, k) => (k ? make("td", {}, said) : make("th", { scope: "row" }, said)));
    return make(
      "div", { class: "linked-frontier-table", tabindex: 0, role: "region", "aria-label": caption },
      make(
        "table", {}, make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...heads.map((said) => make("th", { scope: "col" }, said)))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
      ),
    );
  }

  function runTable(one, cell, partner) {
    const heads = [one.run, cell.name, ...(partner ? [partner.name, cell.pair] : [])];
    const rows = one.runs.map((run, k) => {
      const own = share(one, cell, k), other = partner && share(one, partner, k);
      const isFirst = cell.pair?.startsWith(`${cell.name} `);
      return [String(run), fixed(own), ...(partner ? [fixed(other), signed(isFirst ? own - other : other - own)] : [])];
    });
    return table(`Accuracy of each ${one.run}, %`, heads, rows);
  }

  const rateTable = (cell) =>
    table("Accuracy on dev by rate, %", ["times the paper's", cell.name], cell.tried.map(([name, accuracy, is]) => [is ? `${name} (chosen)` : name, fixed(accuracy)]));

  // Accuracy on dev by step, of each run and their mean.
  function curve(one, cell) {
    const height = 150, foot = height - 24, shares = cell.curves.map((right) => right.map((each) => (100 * each) / one.dev));
    const mean = one.steps.map((_, k) => shares.reduce((total, run) => total + run[k], 0) / shares.length);
    const low = Math.min(...shares.flat()), high = Math.max(...shares.flat()) + 0.01;
    const x = (k) => 16 + (72 * (one.steps[k] - one.steps[0])) / (one.steps.at(-1) - one.steps[0]);
    const y = (value) => 20 + ((high - value) / (high - low)) * (foot - 28);
    const label = `On dev: ${one.steps.map((step, k) => `${percent(mean[k])} at step ${count(step)}`).join(", ")}`;
    const svg = draw("svg", { width: "100%", height, role: "img", "aria-label": label });
    const stroke = data.families[cell.family].colour;
    const path = (run, name) => run.slice(1).map((value, k) => line(x(k), y(run[k]), x(k + 1), y(value), { stroke, class: name }));
    for (const at of ticks(low, high)) svg.append(line(0, y(at), 100, y(at), { class: "grid" }), text(fixed(at).replace(/\.0$/, ""), 0, y(at) - 3));
    svg.append(...shares.flatMap((run) => path(run, "run")), ...path(mean, "path"));
    one.steps.forEach((step, k) => {
      if (k === 0 || k === one.steps.length - 1) svg.append(text(`step ${count(step)}`, x(k), height - 6, { "text-anchor": "middle" }));
    });
    return make("div", { class: "linked-frontier-curve" }, make("p", {}, `${cell.name} on dev: each ${one.run} and the mean, %`), svg);
  }

  figure.replaceChildren(models, tasks, options, chart);
  panel.replaceChildren(said, details);
  element.classList.add("linked-frontier-live");
  show();
}
