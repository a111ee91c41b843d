/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the control thread, sorted by their key. A record is its own memory and never moves. */
#ifndef GW_TABLE_H
#define GW_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_table {
	int (*compare)(const void *a, const void *b); /* of two records: their keys */
	void **items;
	uint32_t count;
	uint32_t room;
};

/**
 * gw_table_find() - find a record.
 * @table: see there.
 * @key: a record of which the key is looked at.
 *
 * Return: the record, or NULL.
 */
void *gw_table_find(const struct gw_table *table, const void *key);

/**
 * gw_table_after() - say where the records begin whose keys are greater.
 * @table: see there.
 * @key: a record of which the key is looked at.
 */
uint32_t gw_table_after(const struct gw_table *table, const void *key);

/**
 * gw_table_put() - insert a record, or put it in the place of the one with the same key.
 * @table: see there.
 * @item: becomes the table's.
 * @replaced: where the former one goes, or NULL.
 *
 * Return: false without memory.
 */
bool gw_table_put(struct gw_table *table, void *item, void **replaced);

/**
 * gw_table_take() - take a record out.
 * @table: see there.
 * @key: a record of which the key is looked at.
 *
 * Return: the record, the caller's again; or NULL.
 */
void *gw_table_take(struct gw_table *table, const void *key);

/**
 * gw_table_copy() - have the same records in another table.
 * @to: its former records are forgotten, not freed.
 * @from: see there.
 *
 * Return: false without memory; @to is then as it was.
 */
bool gw_table_copy(struct gw_table *to, const struct gw_table *from);

/**
 * gw_table_free_others() - free the records that another table does not have.
 * @table: its records are afterwards not to be used.
 * @other: has some of them.
 */
void gw_table_free_others(struct gw_table *table, const struct gw_table *other);

/**
 * gw_table_clear() - free all records, and the table's memory.
 * @table: empty then.
 */
void gw_table_clear(struct gw_table *table);

#endif
