import "@backstitch/ui/page.css";
import "./elements/app.js";
import { libraryAddress } from "./logic/address.js";
import { Studio } from "./studio.js";

const studio = new Studio();
const app = document.createElement("bs-app");
app.studio = studio;
document.body.append(app);
addEventListener("hashchange", () => studio.follow(location.hash));
void studio.open(libraryAddress(location.search));
