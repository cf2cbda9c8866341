// The payload, and what is looked up in it.
const D = JSON.parse(byId("data").textContent);
const pooled = (index) => D.pool[index];
const column = (table, title) => D[table].find((one) => one.title === title);
const textOf = (table, title, row) => pooled(column(table, title).text[row]);

const LEVELS = ["recipe", "family", "code", "secret"];
const knowledgeOf = (cell) => {
  const place = LEVELS.indexOf(textOf("cells", "knows", cell));
  return place < 0 ? 2 : place;
};
const lockNames = D.board.find((one) => one.title === "defense").text.map(pooled);
const contexts = (table, row) => ["model", "task", "budget"].map((title) => textOf(table, title, row));
const groupOf = (lock) => JSON.stringify(contexts("board", lock));
const commandOf = (cell) => [D.shell[0], "{", ...D.details[cell].spec.map(pooled), "}", D.shell[1]].join("\n");

const isTied = (lock, view) => {
  const rank = D.locks[lock].views[view].rank;
  return rank !== null && D.locks.some((other, index) =>
    index !== lock && other.views[view].rank === rank && groupOf(index) === groupOf(lock));
};
