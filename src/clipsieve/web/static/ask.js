// Questions to the server. An answer that says `error` is thrown as an error with that one line.

export async function ask(path, question) {
  const options = { headers: { "X-Clipsieve": "view" } };
  if (question !== undefined) Object.assign(options, { method: "POST", body: JSON.stringify(question) });
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("the server does not answer: is clipsieve view still running?");
  }
  const type = answer.headers.get("content-type") || "";
  const told = type.includes("json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(told.error || `the server says ${answer.status}`);
  return told;
}

// Asks one question at a time: of those that come meanwhile only the last is asked, and only its answer counts.
export function latest(path, heard, failed) {
  let busy = false;
  let waiting = null;
  let number = 0;
  async function next(question, mine) {
    busy = true;
    try {
      const told = await ask(path, question);
      if (mine === number) heard(told, question);
    } catch (failure) {
      if (mine === number) failed(failure);
    }
    busy = false;
    if (waiting) {
      const [then, its] = waiting;
      waiting = null;
      next(then, its);
    }
  }
  return (question) => {
    number += 1;
    if (busy) waiting = [question, number];
    else next(question, number);
  };
}
