"""Which of the gateway processes that share a log in PostgreSQL live: each holds a lock as long as it does."""

# The class of those advisory locks that are lives of replicas.
LIVES = 0x4F73
LIFE = f"""
  select 1 from pg_locks where locktype = 'advisory' and classid = {LIVES} and objid = r.num and objsubid = 2
    and granted and database = (select oid from pg_database where datname = current_database())
"""  # noqa: S608 - literals only
LIVING = f"select id from replicas r where id <> ? and exists ({LIFE})"  # noqa: S608 - literals only
