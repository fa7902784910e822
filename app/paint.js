// A picture whose pixels are hidden by painting. value: {source, width, height, square, hidden}, `hidden` a text of 0
// and 1, row by row; "paint" reports it. Keys: arrows move, space paints, the same again uncovers
let image = null, hidden = [], at = [0, 0], covering = true, painting = false;
const canvas = () => element.querySelector("canvas");
const shape = () => props.value || { width: 1, height: 1, square: 1 };
const brush = () => Number(element.querySelector("input").value);

const draw = () => {
  const { width, height, square } = shape(), area = canvas(), pen = area.getContext("2d");
  const scale = Math.max(1, Math.floor(480 / Math.max(width, height)));
  area.width = width * scale;
  area.height = height * scale;
  pen.imageSmoothingEnabled = false;
  if (image) pen.drawImage(image, 0, 0, area.width, area.height);
  pen.fillStyle = "rgba(230, 60, 120, 0.75)";
  hidden.forEach((one, i) => one && pen.fillRect((i % width) * scale, Math.floor(i / width) * scale, scale, scale));
  pen.strokeStyle = "rgba(128, 128, 128, 0.45)";
  for (let x = square; x < width; x += square) pen.strokeRect(x * scale, -1, 0, area.height + 2);
  for (let y = square; y < height; y += square) pen.strokeRect(-1, y * scale, area.width + 2, 0);
  if (document.activeElement === area) {
    pen.strokeStyle = "#f97316";
    pen.lineWidth = 3;
    const from = (place) => (place - Math.floor(brush() / 2)) * scale;
    pen.strokeRect(from(at[0]), from(at[1]), brush() * scale, brush() * scale);
  }
};

const cover = () => {
  const { width, height } = shape(), size = brush();
  const from = at.map((place) => place - Math.floor(size / 2));
  for (let y = Math.max(0, from[1]); y < Math.min(height, from[1] + size); y++)
    for (let x = Math.max(0, from[0]); x < Math.min(width, from[0] + size); x++) hidden[y * width + x] = covering;
  draw();
};

const report = () => trigger("paint", { hidden: hidden.map(Number).join("") });

const point = (event) => {
  const box = canvas().getBoundingClientRect(), { width, height } = shape();
  const inside = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
  at = [inside((event.clientX - box.left) / box.width, width), inside((event.clientY - box.top) / box.height, height)];
};

element.addEventListener("pointerdown", (event) => {
  if (event.target !== canvas()) return;
  point(event);
  covering = !hidden[at[1] * shape().width + at[0]];
  painting = true;
  canvas().setPointerCapture(event.pointerId);
  cover();
});
element.addEventListener("pointermove", (event) => {
  if (!painting) return;
  point(event);
  cover();
});
element.addEventListener("pointerup", () => {
  if (painting) report();
  painting = false;
});
element.addEventListener("keydown", (event) => {
  if (event.target !== canvas()) return;
  const step = Math.max(1, Math.floor(brush() / 2)), { width, height } = shape();
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in moves) {
    at = [
      Math.min(width - 1, Math.max(0, at[0] + moves[event.key][0])),
      Math.min(height - 1, Math.max(0, at[1] + moves[event.key][1])),
    ];
    draw();
  } else if (event.key === " " || event.key === "Enter") {
    covering = !hidden[at[1] * width + at[0]];
    cover();
    report();
  } else return;
  event.preventDefault();
});
element.addEventListener("focusin", draw);
element.addEventListener("focusout", draw);

const begin = () => {
  const value = props.value;
  if (!value) return;
  hidden = [...value.hidden].map((one) => one === "1");
  at = [Math.floor(value.width / 2), Math.floor(value.height / 2)];
  image = new Image();
  image.onload = draw;
  image.src = value.source;
};
watch("value", begin);
begin();
