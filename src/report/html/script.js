// The comparison slider and the vertical arrow keys in attention pictures; the page works without them.
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

  const selectedView = () => [...section.querySelectorAll("input[name^=view-]")].find(i => i.checked).className.slice(5);
  const figureAt = row => {
    const cell = rows[row].querySelectorAll("td")[image];
    return cell.querySelector("figure." + selectedView()) || cell.querySelector("figure");
  };
  const update = () => {
    for (const [select, img, label] of [[left, ".under", ".label-left"], [right, ".over", ".label-right"]]) {
      const figure = figureAt(select.value);
      const caption = figure.querySelector("figcaption");
      viewer.querySelector(img).src = figure.querySelector("img").src;
      viewer.querySelector(label).textContent = name(rows[select.value]) + (caption ? ": " + caption.textContent : "");
    }
    viewer.querySelector(".position").textContent = "image " + (image + 1) + " of " + count;
  };
  const moveDivider = () => viewer.querySelector(".stage").style.setProperty("--at", range.value + "%");
  const turnPage = offset => { image = (image + offset + count) % count; update(); };

  for (const select of [left, right]) {
    rows.forEach((row, i) => select.add(new Option(name(row), i)));
    select.addEventListener("change", update);
  }
  // The last two arms, or bicubic enlargement and the only arm.
  left.value = rows.length > 4 ? rows.length - 2 : Math.min(2, rows.length - 1);
  right.value = rows.length - 1;
  range.addEventListener("input", moveDivider);
  viewer.querySelector(".previous").addEventListener("click", () => turnPage(-1));
  viewer.querySelector(".next").addEventListener("click", () => turnPage(1));
  section.querySelectorAll("input[name^=view-]").forEach(input => input.addEventListener("change", update));
  section.querySelector(".grid").addEventListener("click", event => {
    const cell = event.target.closest("td");
    if (!cell || event.target.tagName !== "IMG") return;
    image = [...cell.parentNode.querySelectorAll("td")].indexOf(cell);
    right.value = rows.indexOf(cell.parentNode);
    update();
    viewer.scrollIntoView({ block: "nearest" });
  });
  // A whole multiple of the image size, so that all pixels have the same size.
  const imageWidth = Number(rows[0].querySelector("img").getAttribute("width"));
  viewer.querySelector(".stage").style.width = Math.max(1, Math.floor(420 / imageWidth)) * imageWidth + "px";
  viewer.hidden = false;
  update();
  moveDivider();
}

// Moves up and down in the grid of query positions; the browser handles left and right.
for (const positions of document.querySelectorAll(".positions")) {
  const all = [...positions.children];
  positions.addEventListener("keydown", event => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = all[all.indexOf(event.target) + step * Math.sqrt(all.length)];
    if (next) next.checked = true, next.focus();
  });
}
