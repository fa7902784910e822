// Buttons with data-choice: report which one is pressed and of what (data-of), move among them by arrow keys, keep the focus when redrawn
const buttons = () => [...element.querySelectorAll("[data-choice]")];
let last = null;

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-choice]");
  if (!button) return;
  last = button.dataset.choice;
  const of = button.closest("[data-of]")?.dataset.of.split(" ").map(Number) ?? [];
  trigger("choose", { choice: Number(last), of });
});

element.addEventListener("keydown", (event) => {
  const all = buttons();
  const at = all.indexOf(document.activeElement);
  const columns = all.filter((one) => one.offsetTop === all[0].offsetTop).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const next = all[at + steps[event.key]];
  if (at < 0 || !(event.key in steps)) return;
  event.preventDefault();
  if (next) next.focus();
});

watch("value", () => {
  if (last === null || document.activeElement !== document.body) return;
  const again = buttons().find((one) => one.dataset.choice === last);
  if (again) again.focus({ preventScroll: true });
});
