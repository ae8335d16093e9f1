// Requests to the server. An ApiError has a sentence for people; without a session the login page is opened.

import { at } from "./dom.js";
import { t } from "./texts.js";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body instanceof Blob) {
    options.headers["content-type"] = body.type.startsWith("audio/") ? body.type : "audio/wav";
    options.body = body; // a sound, as it is
  } else if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(at(path), options);
  } catch {
    throw new ApiError(t("api.unreachable"), 0);
  }
  if (answer.status === 401) {
    window.location.assign(at(`/login?next=${encodeURIComponent(window.location.pathname)}`));
    throw new ApiError(t("api.log_in"), 401);
  }
  const data = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : {};
  if (!answer.ok) throw new ApiError(data.message || t("api.answered", { status: `${answer.status}` }), answer.status);
  return data;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
export const update = (path, body = {}) => ask("PUT", path, body);
export const remove = (path) => ask("DELETE", path);
export const apiPath = (...parts) => `/v1/${parts.map(encodeURIComponent).join("/")}`;

const NAME = "nearfar.who";

export function savedName() {
  try {
    return localStorage.getItem(NAME) || "";
  } catch {
    return "";
  }
}

export function saveName(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    /* this browser stores nothing: the name is asked for again */
  }
}
