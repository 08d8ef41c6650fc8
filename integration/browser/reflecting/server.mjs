// A page with the mistake that a content security policy is a second line of
// defence for: it writes a query parameter into its HTML as it came (CWE-79).
import http from 'node:http'

const page = (name) => `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Greeting</title></head>
<body>
<p id="greeting">Hello ${name}</p>
<p id="own">waiting</p>
<script>document.getElementById('own').textContent = 'the page works'</script>
</body>
</html>
`

http.createServer((request, response) => {
  const name = new URL(request.url, 'http://localhost').searchParams.get('name') ?? 'stranger'
  response.setHeader('Content-Type', 'text/html; charset=utf-8')
  response.end(page(name))
}).listen(Number(process.argv[2]), '127.0.0.1')
