// What needs a script: the slider between two arms, and two arrow keys. Without it the page has everything else.
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
  const slide = () => viewer.querySelector(".stage").style.setProperty("--at", range.value + "%");
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

// Up and down among the positions of a picture; left and right are the browser's.
for (const positions of document.querySelectorAll(".positions")) {
  const all = [...positions.children];
  positions.addEventListener("keydown", event => {
    const rows = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!rows) return;
    event.preventDefault();
    const next = all[all.indexOf(event.target) + rows * Math.sqrt(all.length)];
    if (next) next.checked = true, next.focus();
  });
}
