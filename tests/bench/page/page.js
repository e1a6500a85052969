// Hands work to one worker, one piece at a time; `just bench` calls `ask` from outside.

const worker = new Worker("worker.js", { type: "module" });

globalThis.ask = (what, given) =>
  new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => ("done" in data ? resolve(data.done) : reject(new Error(data.failed)));
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ what, given });
  });
