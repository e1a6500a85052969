import "@backstitch/ui/page.css";
import "./elements/app.js";
import { Operator } from "./operator.js";

const operator = new Operator();
const app = document.createElement("bs-console");
app.operator = operator;
document.body.append(app);
void operator.start();
