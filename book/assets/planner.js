// The planner: sizes, scalars and bytes of every family's largest adapter at or under a budget, as `cpadapt plan` has
// them, for a model that the reader chooses, and what to take of them. tests/companion/test_planner.py compares the two.

const planner = (() => {
  const FLOAT32 = 4, ADAM = 8, MIB = 2 ** 20;

  function nearestSquare(side) {
    let smaller = Math.floor(Math.sqrt(side));
    while (side % smaller) smaller -= 1;
    return [smaller, side / smaller];
  }

  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const modes = (side) => nearestSquare(side).filter((mode) => mode > 1);

  // Of a projection: why a family refuses it, what a unit of its size costs, its smallest and largest size, how many
  // columns a size has as plain LoRA, and whether a file holds what is trained, not the equal LoRA adapter.
  const one = () => 1, same = (size) => size, endless = () => Infinity, anything = () => null;
  const FAMILIES = {
    lora: {
      refuses: anything, unit: (out, into) => out + into, least: one, most: endless, columns: same, asTrained: true,
    },
    cp: {
      refuses: anything,
      unit: (out, into) => sum([...modes(out), ...modes(into)]) + 1,
      least: one,
      most: (out, into) => out * into,
      columns: same,
      asTrained: true,
    },
    melora: {
      refuses: (out, into) => (out % 2 || into % 2 ? "2 minis do not divide both sides" : null),
      unit: (out, into) => (out + into) / 2,
      least: () => 2,
      most: endless,
      columns: same,
    },
    symlora: {
      refuses: (out, into) => (out === into ? null : "it is not square"),
      unit: (out) => out + 1,
      least: one,
      most: endless,
      columns: same,
    },
    lokr: {
      refuses: (out, into) => (lokrMost(out, into) < 1 ? "its first Kronecker factor is too small to decompose" : null),
      unit: (out, into) => sum([...nearestSquare(out), ...nearestSquare(into)]),
      least: one,
      most: (out, into) => lokrMost(out, into),
      columns: (size) => size ** 2,
      asTrained: true,
    },
  };

  function lokrMost(out, into) {
    return Math.floor((Math.max(nearestSquare(out)[0], nearestSquare(into)[0]) - 1) / 2);
  }

  // One family's offer. Projections are {out, in, times}; a unit is "scalars", "file" (bytes) or "state" (MiB).
  function offer(name, projections, budget, unit) {
    const family = FAMILIES[name];
    for (const { out, in: into } of projections) {
      const reason = family.refuses(out, into);
      if (reason) return { family: name, refused: `${out}×${into}: ${reason}` };
    }
    const each = sum(projections.map((p) => p.times * family.unit(p.out, p.in)));
    const pair = sum(projections.map((p) => p.times * (p.out + p.in)));
    const scalars = (size) => each * size;
    const exported = (size) => FLOAT32 * pair * family.columns(size);
    const file = (size) => (family.asTrained ? FLOAT32 * scalars(size) : exported(size));
    const cost = (size) => ({ scalars: scalars(size), file: file(size), state: (ADAM * scalars(size)) / MIB })[unit];
    const least = family.least(), most = Math.min(...projections.map((p) => family.most(p.out, p.in)));
    if (cost(least) > budget) return { family: name, size: 0, least: { size: least, cost: cost(least) } };
    let size = Math.min(most, Math.max(least, Math.floor(budget / (cost(least) / least))));
    while (cost(size) > budget) size -= 1;
    return {
      family: name, size, scalars: scalars(size), unused: 1 - cost(size) / budget, file: file(size),
      state: (ADAM * scalars(size)) / MIB, exported: exported(size), rank: family.columns(size),
      ranks: scalars(size) / pair, // in scalars of LoRA's rank 1
      step: size < most ? scalars(size + 1) - scalars(size) : null,
    };
  }

  // The projections of one model: its sizes, and which of its modules are adapted.
  function projections({ hidden, layers, queries, keys, inner, gated }, targets) {
    const shapes = {
      q: [queries, hidden], k: [keys, hidden], v: [keys, hidden], o: [hidden, queries],
      gate: gated ? [inner, hidden] : null, up: [inner, hidden], down: [hidden, inner],
    };
    const chosen = targets.map((target) => shapes[target]).filter(Boolean);
    return chosen.map(([out, into]) => ({ out, in: into, times: layers }));
  }

  const plan = (families, of, budget, unit) => families.map((name) => offer(name, of, budget, unit));

  const shown = (number) => number.toLocaleString("en");

  // Which of the rule's sentences says how near projections are to the measured ones.
  function nearness({ measured, sides: [shortest, longest], far }, projections) {
    const counted = new Map();
    for (const { out, in: into, times } of projections) {
      counted.set(`${out}x${into}`, (counted.get(`${out}x${into}`) ?? 0) + times);
    }
    const shapes = [...counted].map(([shape, times]) => `${shape}:${times}`).sort().join();
    if (measured.some((known) => known.join() === shapes)) return "known";
    const sides = projections.flatMap((p) => [p.out, p.in]);
    return Math.min(...sides) * far < shortest || Math.max(...sides) > far * longest ? "far" : "new";
  }

  // What to take of a plan, why, and what that doesn't cover, as cpadapt/families/evidence.py has it; the rule is its.
  function advise(rule, projections, offers) {
    const said = rule.sentences, unknown = said[nearness(rule, projections)];
    const { lora, cp } = Object.fromEntries(offers.map((one) => [one.family, one]));
    if (lora.size > 1) {
      return [said.first + said.larger.replace("{size}", shown(lora.size)), said.equal + said.grown, `${unknown}.`];
    }
    if (lora.size) return [said.first, said.equal, `${unknown}.`];
    const scalars = (name) => FAMILIES[name].least() * sum(projections.map((p) => p.times * FAMILIES[name].unit(p.out, p.in)));
    if (!cp.size) return [said.nothing.replace("{scalars}", shown(Math.min(...rule.families.map(scalars))))];
    const share = cp.scalars / scalars("lora");
    const take = said.smaller
      .replace("{components}", `${shown(cp.size)} component${cp.size === 1 ? "" : "s"}`)
      .replace("{share}", Math.floor(100 * share + 0.5));
    const others = offers
      .filter((one) => !one.refused && !rule.families.includes(one.family) && scalars(one.family) <= scalars("cp"))
      .map((one) =>
        (said[`rival_${one.family}`] ?? said.rival)
          .replaceAll("{family}", rule.titles[one.family])
          .replace("{scalars}", shown(scalars(one.family))))
      .join("");
    return share >= rule.nearly
      ? [take, said.equal, `${unknown}.${others}`]
      : [take, said.one, `${unknown}${said.paid}.${others}`];
  }

  // The first rate of an adapter with so many times the scalars of LoRA's rank 1, or a dash: `rows` are [up to, rate].
  const firstRate = (rows, ranks) => (rows ?? []).find(([upTo]) => ranks <= upTo)?.[1] ?? "–";

  // A budget as people write it: 57600, 57,600, 57 600, 5.76e4, 57.6k or 1.5M; NaN if it is none.
  function amount(text) {
    const grouped = /^\d{1,3}([, ]\d{3})+(\.\d*)?\s*[kM]?$/.test(text.trim());
    const [, digits, suffix] = /^(.*?)\s*([kM]?)$/.exec(grouped ? text.trim().replace(/[, ]/g, "") : text.trim());
    return digits ? Number(digits) * { "": 1, k: 1e3, M: 1e6 }[suffix] : NaN;
  }

  return { plan, projections, advise, firstRate, amount };
})();

for (const element of document.querySelectorAll(".planner")) {
  const data = JSON.parse(element.querySelector("script").textContent);
  const form = element.querySelector("form"), body = element.querySelector("tbody");
  const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
  const bytes = (value) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const place = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(value, 1)) / 3));
    return `${number(value / 1000 ** place, place ? 2 : 0)} ${units[place]}`;
  };
  const mib = (value) => `${value < 1 ? value.toPrecision(2) : number(value, 1)} MiB`;
  const shown = { scalars: (value) => `${number(value)} scalars`, file: bytes, state: mib };
  const SIZES = ["hidden", "layers", "queries", "keys", "inner"];
  const STOPS = 240; // of the slider, on a logarithmic scale

  const sizes = () => Object.fromEntries([
    ...SIZES.map((name) => [name, Math.max(1, Math.floor(Number(form.elements[name].value)) || 1)]),
    ["gated", form.elements.gated.checked],
  ]);
  const targets = () => [...form.querySelectorAll('[name="target"]:checked')].map((box) => box.value);

  // From half of the smallest adapter's cost to that of a hundred LoRA ranks.
  function range(adapted, unit) {
    const costs = planner.plan(data.families.map((f) => f.name), adapted, 0, unit).filter((o) => o.least).map((o) => o.least.cost);
    const rank = planner.plan(["lora"], adapted, 0, unit)[0].least.cost;
    return [Math.min(...costs) / 2, rank * 100];
  }

  function choose(name) {
    const model = data.models.find((known) => known.name === name);
    if (!model) return;
    for (const size of SIZES) form.elements[size].value = model[size];
    form.elements.gated.checked = model.gated;
  }

  function show(fromSlider) {
    const adapted = planner.projections(sizes(), targets()), unit = form.elements.unit.value;
    const note = element.querySelector(".planner-note");
    if (!adapted.length) {
      body.replaceChildren();
      note.textContent = "Choose at least one module to adapt.";
      return;
    }
    const [low, high] = range(adapted, unit), slider = form.elements.slider;
    if (fromSlider) {
      const exact = low * (high / low) ** (slider.value / STOPS);
      form.elements.budget.value = unit === "state" ? Number(exact.toPrecision(3)) : Math.round(exact);
    }
    const budget = planner.amount(form.elements.budget.value);
    if (!(budget > 0)) {
      body.replaceChildren();
      note.textContent = "Give a budget above 0, such as 57,600, 100k or 1e6.";
      return;
    }
    if (!fromSlider) slider.value = Math.round((STOPS * Math.log(budget / low)) / Math.log(high / low));
    slider.setAttribute("aria-valuetext", shown[unit](budget));
    const offers = planner.plan(data.families.map((family) => family.name), adapted, budget, unit);
    body.replaceChildren(...offers.map((offer) => row(offer, unit)));
    note.replaceChildren(...paragraphs(planner.advise(data.rule, adapted, offers)));
  }

  function row(offer, unit) {
    const family = data.families.find((known) => known.name === offer.family);
    const rate = planner.firstRate(family.rates, offer.ranks);
    const line = document.createElement("tr");
    const cells = offer.refused
      ? ["–", `not for ${offer.refused}`]
      : !offer.size
        ? ["none", `the smallest, ${number(offer.least.size)}, takes ${shown[unit](offer.least.cost)}`]
        : [
            number(offer.size), number(offer.scalars), `${number(100 * offer.unused, 1)} %`, bytes(offer.file),
            mib(offer.state), `${bytes(offer.exported)}, rank ${number(offer.rank)}`, rate,
          ];
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = family.title;
    line.append(head);
    cells.forEach((text, place) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (cells.length > 2) cell.dataset.head = data.heads[place + 1]; // beside it where the table has no room
      if (cells.length === 2 && place === 1) cell.colSpan = 6;
      line.append(cell);
    });
    return line;
  }

  // An advice, a paragraph for each of its sentences.
  function paragraphs(lines) {
    return lines.map((line) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = line;
      return paragraph;
    });
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "model") choose(event.target.value);
    else if (SIZES.includes(event.target.name) || event.target.name === "gated") form.elements.model.value = "";
    show(event.target.name === "slider" || ["unit", "model", "target"].includes(event.target.name) || SIZES.includes(event.target.name));
  });
  element.classList.add("planner-live");
  show(false);
}
