// The bodies every system answers, byte for byte the same: taken from the release cluster when it takes part,
// otherwise stand-ins of the same shape.

/** Products in the catalogue. */
export const PRODUCTS = 1000;

const uuid = (n) => `01990000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;

function standInProduct(n) {
  return JSON.stringify({
    id: uuid(n),
    slug: `stand-in-product-${n}`,
    name: `Stand-in product ${n}`,
    description: 'A product that stands in for one of the catalogue while the cluster itself is not measured. '.repeat(2).trim(),
    brand: 'Stand-in',
    price: { amount: 1000 + n, currency: 'EUR' },
    stock: n % 100,
    version: 1,
    vendor: { id: uuid(n % 20), name: `Vendor ${n % 20}` },
    category: { id: uuid(n % 12), slug: `category-${n % 12}`, name: `Category ${n % 12}` },
  });
}

/** `plain`, `limited`, `leased` and `blocked` bodies, `products` as a list of [id, body], and their `slugs`. */
export function standInPayloads() {
  const categories = Array.from({ length: 12 }, (_, n) => ({ id: uuid(n), slug: `category-${n}`, name: `Category ${n}` }));
  return {
    plain: 'ok\n',
    limited: JSON.stringify({ items: categories, next_cursor: null }),
    leased: JSON.stringify({ items: Array.from({ length: 3 }, (_, n) => JSON.parse(standInProduct(n))), next_cursor: 'stand-in' }),
    blocked: JSON.stringify({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Request cannot be satisfied as assigned quota has been exceeded',
      status: 429,
      'violated-policies': ['blocked'],
    }),
    products: Array.from({ length: PRODUCTS }, (_, n) => [uuid(n), standInProduct(n)]),
    slugs: Array.from({ length: PRODUCTS }, (_, n) => `stand-in-product-${n}`),
  };
}

/** The product body of median length: what a server of one constant answer gives on the product route. */
export function typicalProduct({ products }) {
  const bodies = products.map(([, body]) => body);
  bodies.sort((a, b) => Buffer.byteLength(a) - Buffer.byteLength(b));
  return bodies[Math.floor(bodies.length / 2)];
}
