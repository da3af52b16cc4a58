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

// Asks one question at a time: of those that come meanwhile only the last is asked. Every answer is heard, and whether
// it is that of the newest question.
export function latest(path, heard, failed) {
  let busy = false;
  let next = null;
  return async (question) => {
    next = question;
    if (busy) return;
    busy = true;
    while (next) {
      const mine = next;
      next = null;
      try {
        const told = await ask(path, mine);
        heard(told, mine, !next);
      } catch (failure) {
        if (!next) failed(failure);
      }
    }
    busy = false;
  };
}
