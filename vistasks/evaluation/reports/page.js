document.querySelectorAll("table.sorts").forEach(table => table.querySelectorAll("thead th").forEach((head, column) => {
  head.addEventListener("click", () => {
    const way = head.dataset.way === "-1" ? 1 : -1;
    table.querySelectorAll("thead th").forEach(other => delete other.dataset.way);
    head.dataset.way = way;
    const body = table.tBodies[0];
    const value = row => { const cell = row.cells[column].dataset.value ?? row.cells[column].textContent; return cell === "" ? null : isNaN(cell) ? cell : Number(cell); };
    [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return way * (typeof x === "string" || typeof y === "string" ? String(x).localeCompare(String(y)) : x - y);
    }).forEach(row => body.append(row));
  });
}));
const choices = [...document.querySelectorAll(".controls select")];
const filter = () => document.querySelectorAll(".gallery figure").forEach(figure => figure.classList.toggle("hidden",
  choices.some(choice => choice.value && !figure.dataset[choice.name].split("|").includes(choice.value))));
choices.forEach(choice => choice.addEventListener("change", filter));
