// Draws three of the seeds that were measured and says which family they put ahead, as often as the reader likes.
// tests/companion/test_three_seeds.py compares many draws with the share over all choices of three.

const threeSeeds = (() => {
  // Three different places of so many, ascending, every choice as likely as any other.
  function pick(count, random = Math.random) {
    const found = new Set();
    while (found.size < 3) found.add(Math.floor(random() * count));
    return [...found].sort((a, b) => a - b);
  }

  // How many more items LoRA has right than CP, over the runs at these places.
  const gap = ({ lora, cp }, places) => places.reduce((total, place) => total + lora[place] - cp[place], 0);

  return { pick, gap };
})();

for (const element of document.querySelectorAll(".three-seeds")) {
  const data = JSON.parse(element.querySelector("script").textContent);
  const find = (name) => element.querySelector(`.three-seeds-${name}`);
  const strip = find("drawn");
  let draws = 0, missed = 0;

  function stroke(points) {
    const x = `${(100 * (points - data.low)) / (data.high - data.low)}%`;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const { top, foot } = strip.dataset;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: top, y2: foot })) line.setAttribute(name, value);
    strip.lastElementChild?.classList.remove("three-seeds-new");
    line.classList.add("three-seeds-new");
    strip.append(line);
  }

  function draw(times) {
    let places, gap;
    for (let time = 0; time < times; time += 1) {
      places = threeSeeds.pick(data.seeds.length);
      gap = threeSeeds.gap(data, places);
      draws += 1;
      missed += gap <= 0;
      stroke((100 * gap) / (3 * data.items));
    }
    const share = (right) => {
      const sum = places.reduce((total, place) => total + right[place], 0);
      return `${((100 * sum) / (3 * data.items)).toFixed(1)}\u202f%`;
    };
    const won = gap > 0 ? "LoRA wins." : gap < 0 ? "CP wins." : "Neither wins.";
    const [first, second, third] = places.map((place) => data.seeds[place]);
    find("last").textContent = `Seeds ${first}, ${second} and ${third}: LoRA ${share(data.lora)}, CP ${share(data.cp)}. ${won}`;
    tell();
  }

  function tell() {
    const said = `${draws.toLocaleString("en")} ${draws === 1 ? "draw" : "draws"}: CP ahead, or neither, in ${missed.toLocaleString("en")}`;
    find("tally").textContent = draws ? `${said} (${Math.round((100 * missed) / draws)}\u202f%).` : "";
  }

  function clear() {
    draws = missed = 0;
    strip.replaceChildren();
    find("last").textContent = "Nothing is trained: each draw picks three of the seeds that were measured.";
    tell();
  }

  const actions = { one: () => draw(1), many: () => draw(100), clear };
  for (const button of element.querySelectorAll("button")) button.addEventListener("click", actions[button.name]);
  element.classList.add("three-seeds-live");
  clear();
}
