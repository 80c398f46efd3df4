-- wrk's request: a chat completion. Arguments after --: token, model, KiB of prompt, headers "k: v".
function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  for i = 4, #args do
    local name, value = args[i]:match("^([^:]+):%s*(.*)$")
    if name then wrk.headers[name] = value end
  end
  local sentences = math.max(8, math.floor(tonumber(args[3]) * 1024 / 30))
  wrk.body = '{"model": "' .. args[2] .. '", "messages": [{"role": "user", "content": "'
    .. string.rep("Hello, please summarise this. ", sentences) .. '"}], "max_tokens": 256}'
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'JSON {"n":%d,"wall_s":%.3f,"per_s":%.1f,"lat_p50":%.3f,"lat_p95":%.3f,"lat_p99":%.3f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    e.connect + e.read + e.write + e.status + e.timeout))
end
