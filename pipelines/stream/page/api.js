// The server's HTTP side, and the token where it wants one.
const dialog = document.getElementById("login");
let asking = null;

/** Asks for the token once, however many requests want it. */
function login() {
  asking ??= new Promise((done) => {
    const form = dialog.querySelector("form");
    const error = document.getElementById("login-error");
    form.onsubmit = async (event) => {
      event.preventDefault();
      const token = document.getElementById("token").value;
      const answer = await send("POST", "/api/login", { token });
      if (!answer.ok) {
        error.textContent = (await answer.json()).error.message;
        return;
      }
      error.textContent = "";
      document.getElementById("token").value = "";
      dialog.close();
      asking = null;
      done();
    };
    dialog.showModal();
  });
  return asking;
}

function send(method, path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  return fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
}

/** The JSON that a path answers; throws an Error with the server's sentence. */
export async function call(method, path, body) {
  let answer;
  try {
    answer = await send(method, path, body);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.status === 401) {
    await login();
    return call(method, path, body);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message ?? `The server answered ${answer.status}.`);
  }
  return answer.status === 204 ? null : answer.json();
}
