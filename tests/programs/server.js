// A server as people write it, on the socket that it inherits. Nothing in it knows who started it.
const http = require("http");

const server = http.createServer((request, response) => {
  if (request.url === "/crash") process.exit(9);
  const answer = () => response.end(`${process.env.WORKER_ID} ${process.pid}\n`);
  if (request.url !== "/slow") return answer();
  console.log("a slow request begins");
  setTimeout(answer, 2000);
});

server.listen({ fd: 3 }, () => console.log(`node ${process.pid} listens`));
process.on("SIGTERM", () => {
  console.log(`node ${process.pid} is told to end`);
  if (!process.env.DEAF) server.close();
});
