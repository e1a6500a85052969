// The page's beginning: the library is on its way before the page is drawn, for it takes longest. A browser hands a worker
// its first message only when the page's own thread is free, so drawing waits until the worker has begun.

import "@backstitch/ui/page.css";
import { libraryAddress } from "./logic/address.js";
import { Studio } from "./studio.js";

const studio = new Studio();
void studio.open(libraryAddress(location.search));
addEventListener("hashchange", () => studio.follow(location.hash));
await studio.underway;
await import("./elements/app.js");
const app = document.createElement("bs-app");
app.studio = studio;
document.body.append(app);
