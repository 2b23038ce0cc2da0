// What needs a script: the slider between two arms, other positions for attention, and a table under the pointer in a
// chart. Without it the page has everything else.
"use strict";
document.documentElement.classList.add("js");

for (const section of document.querySelectorAll(".images")) {
  const viewer = section.querySelector(".viewer");
  const rows = [...section.querySelectorAll(".grid tr")];
  const name = row => row.querySelector("th span").textContent;
  const count = rows[0].querySelectorAll("td").length;
  const [left, right] = [".left", ".right"].map(c => viewer.querySelector(c));
  const range = viewer.querySelector("input");
  let image = 0;

  const view = () => [...section.querySelectorAll("input[name^=view-]")].find(i => i.checked).className.slice(5);
  const shown = row => {
    const cell = rows[row].querySelectorAll("td")[image];
    return cell.querySelector("figure." + view()) || cell.querySelector("figure");
  };
  const show = () => {
    for (const [select, img, said] of [[left, ".under", ".say-left"], [right, ".over", ".say-right"]]) {
      const figure = shown(select.value);
      const caption = figure.querySelector("figcaption");
      viewer.querySelector(img).src = figure.querySelector("img").src;
      viewer.querySelector(said).textContent = name(rows[select.value]) + (caption ? ": " + caption.textContent : "");
    }
    viewer.querySelector(".which").textContent = "image " + (image + 1) + " of " + count;
  };
  const slide = () => viewer.querySelector(".stage").style.setProperty("--at", range.value / 10 + "%");
  const page = by => { image = (image + by + count) % count; show(); };

  for (const select of [left, right]) {
    rows.forEach((row, i) => select.add(new Option(name(row), i)));
    select.addEventListener("change", show);
  }
  left.value = Math.min(2, rows.length - 1);
  right.value = rows.length - 1;
  range.addEventListener("input", slide);
  viewer.querySelector(".back").addEventListener("click", () => page(-1));
  viewer.querySelector(".on").addEventListener("click", () => page(1));
  section.querySelectorAll("input[name^=view-]").forEach(input => input.addEventListener("change", show));
  section.querySelector(".grid").addEventListener("click", event => {
    const cell = event.target.closest("td");
    if (!cell || event.target.tagName !== "IMG") return;
    image = [...cell.parentNode.querySelectorAll("td")].indexOf(cell);
    right.value = rows.indexOf(cell.parentNode);
    show();
    viewer.scrollIntoView({ block: "nearest" });
  });
  // Sizes of the viewer are whole multiples of the images', so that all pixels are as large.
  const first = rows[0].querySelector("img");
  const wide = Number(first.getAttribute("width"));
  viewer.querySelector(".stage").style.width = Math.max(1, Math.floor(420 / wide)) * wide + "px";
  viewer.hidden = false;
  show();
  slide();
}

// What a position of a layer of attention looks at, drawn in the colours that the page's own maps have.
for (const looks of document.querySelectorAll(".looks")) {
  const [n, keys] = [Number(looks.dataset.queries), Number(looks.dataset.keys)];
  const inferno = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];
  const colour = level => {
    const at = level / 255 * 8, below = Math.min(7, Math.floor(at)), part = at - below;
    return inferno[below].map((from, c) => from + part * (inferno[below + 1][c] - from));
  };
  for (const figure of looks.querySelectorAll("figure")) {
    const weights = Uint8Array.from(atob(figure.dataset.weights), c => c.charCodeAt(0));
    const [asks, looked] = [figure.querySelector(".asks"), figure.querySelector(".looked")];
    let [x, y] = [n >> 1, n >> 1];
    const ask = (toX, toY) => {
      [x, y] = [toX, toY].map(v => Math.max(0, Math.min(n - 1, v)));
      figure.style.setProperty("--x", x);
      figure.style.setProperty("--y", y);
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = keys;
      const context = canvas.getContext("2d"), drawn = context.createImageData(keys, keys);
      weights.subarray((y * n + x) * keys * keys).subarray(0, keys * keys).forEach((level, i) => drawn.data.set([...colour(level), 255], 4 * i));
      context.putImageData(drawn, 0, 0);
      looked.src = canvas.toDataURL();
    };
    const point = event => {
      const box = asks.getBoundingClientRect();
      ask(Math.floor((event.clientX - box.left) / box.width * n), Math.floor((event.clientY - box.top) / box.height * n));
    };
    asks.addEventListener("pointermove", point);
    asks.addEventListener("pointerdown", point);
    asks.addEventListener("keydown", event => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!by) return;
      event.preventDefault();
      ask(x + by[0], y + by[1]);
    });
  }
}

for (const chart of document.querySelectorAll(".chart")) {
  // Values at two places of an axis, the places, and whether it is logarithmic.
  const scale = text => {
    const [low, high, from, to, log] = text.split(" ").map(Number);
    return place => {
      const share = (place - from) / (to - from);
      return log ? low * (high / low) ** share : low + (high - low) * share;
    };
  };
  const [x, y] = [scale(chart.dataset.x), scale(chart.dataset.y)];
  const [, , from, to] = chart.dataset.x.split(" ").map(Number);
  const [, , bottom, top] = chart.dataset.y.split(" ").map(Number);
  const lines = [...chart.querySelectorAll("g[data-name]")].map(g => ({
    g,
    points: g.querySelector("polyline").getAttribute("points").split(" ").map(p => p.split(",").map(Number)),
  })).filter(line => line.points[0].length === 2);
  const plot = chart.parentNode;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  plot.append(tip);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", top);
  cursor.setAttribute("y2", bottom);
  const digits = value => Number(value.toPrecision(3)).toString();

  const hide = () => { tip.hidden = true; cursor.remove(); };
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("pointermove", event => {
    const box = chart.getBoundingClientRect();
    const at = (event.clientX - box.left) * 600 / box.width;
    if (at < from - 4 || at > to + 4) return hide();
    const near = lines.map(({ g, points }) => {
      const point = points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
      return { g, point, far: Math.abs(point[0] - at) };
    }).filter(({ far }) => far < 24);
    if (!near.length) return hide();
    const place = near.reduce((a, b) => b.far < a.far ? b : a).point[0];
    near.sort((a, b) => a.point[1] - b.point[1]);
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = digits(x(place)) + " " + chart.dataset.unit;
    tip.append(head);
    for (const { g, point } of near.slice(0, 12)) {
      const row = document.createElement("div");
      const mark = document.createElement("i");
      mark.className = g.getAttribute("class");
      row.append(mark, g.dataset.name + "  " + digits(y(point[1])));
      tip.append(row);
    }
    if (near.length > 12) tip.append("and " + (near.length - 12) + " more");
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    chart.append(cursor);
    tip.hidden = false;
    const offset = place * box.width / 600;
    const room = plot.clientWidth + plot.scrollLeft;
    tip.style.left = (offset + 14 + tip.offsetWidth > room ? Math.max(0, offset - 14 - tip.offsetWidth) : offset + 14) + "px";
    tip.style.top = Math.max(0, event.clientY - box.top - 20) + "px";
  });
}

// A name in a legend brings its line out.
for (const panel of document.querySelectorAll(".panel")) {
  const items = [...panel.querySelectorAll(".legend li")];
  const lines = name => [...panel.querySelectorAll("g[data-name]")].filter(g => g.dataset.name === name);
  for (const item of items) {
    const toggle = on => {
      panel.classList.toggle("dimmed", on);
      lines(item.textContent.trim()).forEach(g => g.classList.toggle("lit", on));
    };
    item.addEventListener("pointerenter", () => toggle(true));
    item.addEventListener("pointerleave", () => toggle(false));
  }
}
