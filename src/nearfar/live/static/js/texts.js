// The texts of the pages in the reader's language: the server puts texts/LANGUAGE/pages.json on the page.

const CATALOGUE = JSON.parse(document.getElementById("texts").textContent);
const LANGUAGE = document.documentElement.lang;

// The reader's own form of the language, such as de-AT: it says how numbers and dates are written.
export const LOCALE = navigator.languages.find((each) => each.split("-")[0] === LANGUAGE) || LANGUAGE;

const FORMS = new Intl.PluralRules(LOCALE);
const formats = new Map(); // of numbers, by their options

// Whether there is a text of this key.
export const known = (key) => Boolean(found(key));

// The text of a key such as "machine.some", with {places}: numbers are written as the reader does.
export const t = (key, values) => parts(key, values).join("");

// The same as an array for `h`, where elements may stand at places. `count` chooses between the forms of a text.
export function parts(key, values = {}) {
  const text = found(key);
  const form = typeof text === "string" ? text : (text[FORMS.select(values.count)] ?? text.other);
  return form.split(/\{(\w+)\}/).map((part, i) => {
    if (i % 2 === 0) return part;
    return typeof values[part] === "number" ? number(values[part]) : values[part];
  });
}

// The texts of a key that has several.
export const list = (key) => found(key);

function found(key) {
  const [section, name] = key.split(".");
  return CATALOGUE[section][name];
}

// A number with the options of Intl.NumberFormat; a minus is as wide as a plus.
export function number(value, options = {}) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(LOCALE, options));
  return formats.get(key).format(value).replace("-", "−");
}

// A number with so many digits behind the point; there is no minus before a zero.
export const fixed = (value, digits) =>
  number(Number(value.toFixed(digits)) + 0, { minimumFractionDigits: digits, maximumFractionDigits: digits });
