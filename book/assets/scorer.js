// How a search orders its results: Sphinx's own points, with the API behind the pages.
var Scorer = {
  score: ([page, , , , score]) => (page.startsWith("book/api") ? score - 30 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
