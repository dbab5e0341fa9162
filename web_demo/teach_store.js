/**
 * What was taught, kept in this browser: IndexedDB, one record for each name and model.
 *
 * @typedef {{from: string, name: string}} Key  the model's `created_from`, and what the user called it
 */

const DATABASE = "cutpoint-taught";
const RECORDS = "records";

const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(RECORDS, { keyPath: ["from", "name"] });
  return settled(request);
}

/** Do one thing with the records; what goes wrong becomes a sentence. */
async function within(mode, work) {
  let database = null;
  try {
    database = await open();
    const transaction = database.transaction(RECORDS, mode);
    const ended = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([settled(work(transaction.objectStore(RECORDS))), ended]);
    return result;
  } catch (fault) {
    throw new Error(sentenceOf(fault));
  } finally {
    database?.close();
  }
}

function sentenceOf(fault) {
  if (fault?.name === "QuotaExceededError") {
    return "This browser has no room left for it. Delete something that you saved here, or download it as a file.";
  }
  return `This browser does not let the page keep anything (${fault?.message ?? fault}). Download it as a file.`;
}

/** Keep a record, in place of one of the same name. @param {Key & object} record */
export const keep = (record) => within("readwrite", (records) => records.put(record));

/** The record of a key; undefined where there is none. @param {Key} key */
export const find = ({ from, name }) => within("readonly", (records) => records.get([from, name]));

/** Remove a record. @param {Key} key */
export const forget = ({ from, name }) => within("readwrite", (records) => records.delete([from, name]));

/** The names of all records of a model, sorted. @param {string} from  the model's `created_from` */
export async function names(from) {
  const keys = await within("readonly", (records) => records.getAllKeys());
  return keys.filter(([of]) => of === from).map(([, name]) => name).sort();
}
